"""Digests of a source's files, computed once for each state of a large one: every run and every job asks for them."""

from pathlib import Path
from typing import Final

from alignlab.digests import digest_of_file, remember, remembered_digest

LARGE: Final = 2**24
"""Bytes from which a digest is remembered; smaller files take no time."""

_folders: list[Path] = []


def keep_in(folder: Path) -> None:
    """Also remember digests below this folder, for later processes."""
    _folders[:] = [folder]


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content; of a large one it is computed again when size, time or inode have changed."""
    if path.stat().st_size < LARGE:
        return digest_of_file(path)
    memory = _folders[0] if _folders else None
    digest = remembered_digest(path, memory)
    if memory is not None:
        remember([path], memory)
    return digest
