"""Files that outlive a crash of the machine, and errors of a disk that is full."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a disk, or of a user's share of it, that has no space left."""
_WORDS: Final = ("no space left on device", "disk quota exceeded")
_TORN: Final = ("unexpected pos", "pytorchstreamwriter")
"""Words of torch where it could not write a file, for whatever reason."""


def put(temporary: Path, file: Path) -> None:
    """Give a file that is on the disk its name, in one step that outlives a crash."""
    os.replace(temporary, file)
    sync_folder(file.parent)


def sync_tree(folder: Path) -> None:
    """Bring a folder to the disk, with everything in it."""
    for entry in folder.rglob("*"):
        if entry.is_dir():
            sync_folder(entry)
        elif not entry.is_symlink():
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of a full disk; libraries hide it in classes of their own."""
    return any(_is_full(part) for part in _chain(error))


def cause(error: BaseException) -> str:
    """The error of the full disk among those that an error came from, in its own words."""
    return next(str(part) for part in _chain(error) if _is_full(part))


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error).lower()
    return any(words in text for words in _WORDS) or (isinstance(error, RuntimeError) and any(w in text for w in _TORN))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and not any(error is one for one in seen):
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__
