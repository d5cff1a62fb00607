"""Provenance of an artifact or a run: versions, git commit, time. Recorded, never part of a fingerprint."""

import datetime
import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from alignlab import __version__

RECORDED = ("torch", "transformers", "pytorch-lightning", "tokenizers", "numpy", "peft", "vllm")


def of_now() -> dict[str, Any]:
    """`versions`, `git` (None outside of a repository) and `created` (UTC)."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"versions": versions(), "git": git_commit(), "created": created}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, alignlab and what computes; those that are not installed are left out."""
    found = {"python": platform.python_version(), "alignlab": __version__}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Commit of the source tree that is running, `-dirty` when files differ from it; None outside of one."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():  # not a checkout of ours: an enclosing repository may be another project's
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
