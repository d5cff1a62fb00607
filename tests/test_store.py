"""The store: each artifact made once, by one of all who ask for it, and published whole or not at all."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import StoreError
from alignlab.pipeline.store import Store, fingerprint

KEY = fingerprint("something")
BUILD = """
import os, sys, time
from pathlib import Path
from alignlab.pipeline.store import Store

def build(folder, work):
    with open(sys.argv[3], "a") as log:
        log.write(f"{os.getpid()}\\n")
    (folder / "made").write_text("whole")
    time.sleep(float(sys.argv[4]))
    return {"kind": "other"}

artifact, cached = Store(Path(sys.argv[1])).get_or_build(sys.argv[2], build)
print((artifact.path / "made").read_text(), cached)
"""


def asker(root: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that asks for `KEY`, and takes so long to make it."""
    script = [sys.executable, "-c", BUILD, str(root / "store"), KEY, str(root / "log"), str(seconds)]
    return subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def builders(root: Path) -> list[str]:
    return (root / "log").read_text().split() if (root / "log").exists() else []


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_of_all_who_ask_at_once_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    asking = [asker(tmp_path, 1.0) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in asking]
    assert sorted(out.strip() for out, _ in said) == ["whole False", *["whole True"] * 3], said
    assert len(builders(tmp_path)) == 1


def test_when_the_builder_is_killed_another_one_takes_over(tmp_path: Path) -> None:
    first = asker(tmp_path, 600)
    wait_for(lambda: builders(tmp_path))
    second = asker(tmp_path, 0)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert out.strip() == "whole False", err
    assert len(builders(tmp_path)) == 2
    published = [f.name for f in (tmp_path / "store" / "objects").iterdir()]
    assert published == [KEY[:32]], "what the dead builder had begun must be gone"


def test_what_fails_publishes_nothing_and_keeps_its_work(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(folder: Path, work: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        (work / "last.ckpt").write_text("resume here")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.get_or_build(KEY, fails)
    assert not store.has(KEY) and list((tmp_path / "objects").iterdir()) == []
    assert (tmp_path / "work" / KEY[:32] / "last.ckpt").read_text() == "resume here"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "sub" / "made").write_bytes(b"wholf"), "has changed"),
        (lambda f: (f / "sub" / "made").unlink(), "is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "cannot be read"),
    ],
)
def test_an_artifact_that_was_harmed_is_not_handed_out(
    harm: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    def build(folder: Path, _: Path) -> dict[str, Any]:
        (folder / "sub").mkdir()
        (folder / "sub" / "made").write_text("whole")
        return {"kind": "other"}

    store = Store(tmp_path)
    artifact, cached = store.get_or_build(KEY, build)
    assert not cached and artifact.path.stat().st_mode & 0o777 == 0o755
    harm(artifact.path)
    with pytest.raises(StoreError, match=message):
        store.get_or_build(KEY, build)


def test_a_fingerprint_is_of_content_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
