"""Digests of files, computed once for each state of a large one: every run asks for them, and every job of a sweep."""

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import Final, TypeAlias

from alignlab.artifact import digest_of_file, write_json

LARGE: Final = 2**24
"""Bytes from which a digest is remembered; smaller files take no time."""
SETTLED: Final = 2.0
"""Seconds after which a further change of a file surely changes its time."""
State: TypeAlias = list[int | str]

_known: dict[str, tuple[State, str]] = {}
_folders: list[Path] = []


def keep_in(folder: Path) -> None:
    """Also remember digests below this folder, for later processes."""
    _folders[:] = [folder]


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content; of a large one it is computed again when size, time or inode have changed."""
    state = _state(path)
    if int(state[1]) < LARGE:
        return digest_of_file(path)
    place = str(path.absolute())
    if place not in _known:
        _known[place] = _read(place)
    if _known[place][0] != state:
        _known[place] = state, digest_of_file(path)
        if time.time() - path.stat().st_mtime > SETTLED and _state(path) == state:
            _write(place)
    return _known[place][1]


def _state(path: Path) -> State:
    found = path.stat()
    return [str(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ino]


def _file(place: str) -> Path | None:
    return _folders[0] / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json" if _folders else None


def _read(place: str) -> tuple[State, str]:
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        if file := _file(place):
            found = json.loads(file.read_text(encoding="utf-8"))
            return list(found["state"]), str(found["sha256"])
    return [], ""


def _write(place: str) -> None:
    with contextlib.suppress(OSError):  # a store that is read only, say
        if file := _file(place):
            file.parent.mkdir(parents=True, exist_ok=True)
            state, digest = _known[place]
            write_json(file, {"state": state, "sha256": digest})
