"""Cache: folders that were computed from data, each made once and found again by what it was made of."""

import atexit
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

Build: TypeAlias = Callable[[Path], None]
"""Writes a folder."""
Keep: TypeAlias = Callable[[Mapping[str, Any], Build], Path]
"""The folder of an identity (plain JSON), built if need be; it appears whole or not at all, see `Store.keep`."""
Tell: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
"""Takes what is done, what there is to do, and a few numbers."""
Progress: TypeAlias = Callable[[str], AbstractContextManager[Tell]]
"""Opens the report of one long computation by its description."""


@contextmanager
def silent(what: str) -> Iterator[Tell]:
    """No report."""
    yield lambda done, total, metrics: None


class Cache:
    """Where a data source keeps what is too large for memory.

    Args:
        keep: the store's; None keeps folders until this process ends.
        progress: reports what takes long.
    """

    def __init__(self, keep: Keep | None = None, progress: Progress = silent) -> None:
        self._keep = keep or _scratch.keep
        self.progress = progress

    def __reduce__(self) -> tuple[type["Cache"], tuple[()]]:
        """A process that was spawned finds what is made already; it makes nothing for others."""
        return Cache, ()

    def folder(self, identity: Mapping[str, Any], build: Build) -> Path:
        """The folder of an identity, read only, built if need be.

        Args:
            identity: everything that its content follows from, the code of alignlab.data left out: it is added here.
            build: writes it.
        """
        return self._keep({**identity, "code": _code()}, build)


class _Scratch:
    """Folders that are removed when the process ends."""

    def __init__(self) -> None:
        self._made: dict[str, Path] = {}

    def keep(self, identity: Mapping[str, Any], build: Build) -> Path:
        key = json.dumps(identity, sort_keys=True)
        if key not in self._made:
            folder = Path(tempfile.mkdtemp(prefix="alignlab-data-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            build(folder)
            self._made[key] = folder
        return self._made[key]


_scratch = _Scratch()


@functools.cache
def _code() -> str:
    """Digest of the modules that turn files into tokens."""
    here = Path(__file__).parent
    total = hashlib.sha256()
    for file in sorted([*here.glob("*.py"), *here.glob("files/*.py")]):
        total.update(file.read_bytes())
    return total.hexdigest()
