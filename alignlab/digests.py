"""SHA-256 of files, computed once: remembered by path, size, time and inode, in this process or in a folder."""

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

State: TypeAlias = tuple[str, int, int, int]
"""Real path, size in bytes, time of the last change in nanoseconds, and inode."""
SETTLED: Final = 2.0
"""Seconds after which a further change of a file surely changes its time; a younger state is noted for nobody."""

_KNOWN: dict[State, str] = {}


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content, read now."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_digest(path: Path, memory: Path | None = None) -> str:
    """SHA-256 of a file that is large and hardly ever changes; read once, unless its size or time changes.

    Args:
        path: the file.
        memory: a folder in which an earlier process may have noted digests (`remember`).
    """
    state = _state(path)
    if state not in _KNOWN:
        _KNOWN[state] = _noted(state, memory) or _named_by_its_digest(state) or digest_of_file(path)
    return _KNOWN[state]


def remember(paths: Iterable[Path], memory: Path) -> None:
    """Note the digests of some files for later processes, where the folder can be written to."""
    with contextlib.suppress(OSError):
        memory.mkdir(parents=True, exist_ok=True)
        for path in paths:
            state, note = _state(path), _note(path, memory)
            if time.time() - state[2] / 1e9 <= SETTLED:
                continue
            if _noted(state, memory) != (digest := remembered_digest(path)):
                temporary = note.with_name(f".{secrets.token_hex(4)}.tmp")
                temporary.write_text(json.dumps({"state": state, "sha256": digest}), encoding="utf-8")
                temporary.replace(note)


def _state(path: Path) -> State:
    found = path.stat()
    return str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ino


def _note(path: Path, memory: Path) -> Path:
    return memory / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"


def _noted(state: State, memory: Path | None) -> str:
    """The digest that was noted for a file in this very state; empty where none was."""
    if memory is None:
        return ""
    try:
        found = json.loads(_note(Path(state[0]), memory).read_text(encoding="utf-8"))
        return str(found["sha256"]) if tuple(found["state"]) == state else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _named_by_its_digest(state: State) -> str:
    """The name of a file in the cache of the Hugging Face hub, which is its SHA-256 where it is large."""
    path = Path(state[0])
    is_digest = len(path.name) == 64 and set(path.name) <= set("0123456789abcdef")
    return path.name if is_digest and path.parent.name == "blobs" else ""
