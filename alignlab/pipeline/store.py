"""The store: artifacts by fingerprint, computed once, published whole or not at all.

A fingerprint is a SHA-256 of canonical JSON: the stage's class and VERSION, its resolved identity, the fingerprints
of its inputs, the digest of its data. The same fingerprint is the same artifact, whoever asks.

Left out so far: listing and collecting garbage.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignlab.artifact import MANIFEST, Artifact, files_of, write_json
from alignlab.errors import StoreError

SCHEMA = 1
"""Layout of artifacts; part of every fingerprint."""


def fingerprint(identity: Any) -> str:
    """SHA-256 of canonical JSON; 64 hexadecimal digits."""
    text = json.dumps({"schema": SCHEMA, "identity": identity}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Artifacts below one folder, `objects/<fingerprint>`; `work/<fingerprint>` holds what outlives a crash."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def path(self, key: str) -> Path:
        """Where the artifact of a fingerprint is, or would be."""
        return self.root / "objects" / key[:32]

    def has(self, key: str) -> bool:
        """Whether the artifact was published."""
        return (self.path(key) / MANIFEST).is_file()

    def get_or_build(self, key: str, build: Callable[[Path, Path], dict[str, Any]]) -> tuple[Artifact, bool]:
        """The artifact of `key`, built if need be by exactly one of all processes that ask for it.

        Args:
            build: writes into its first folder and returns what the manifest shall say; its second folder is kept
                when it fails, for checkpoints, and removed when it succeeds.

        Returns:
            The artifact, and whether it was there already.
        """
        if self.has(key):
            return self._open(key), True
        try:
            for folder in ("objects", "work", "locks"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store_dir: {self.root} cannot be written to ({error}); choose another") from error
        with FileLock(self.root / "locks" / f"{key[:32]}.lock"):
            if self.has(key):
                return self._open(key), True
            if self.path(key).exists():
                raise StoreError(f"{self.path(key)} has lost its {MANIFEST}; delete the folder and run again")
            self._build(key, build)
        return self._open(key), False

    def _open(self, key: str) -> Artifact:
        artifact = Artifact.open(self.path(key))
        if artifact.fingerprint != key:
            raise StoreError(f"{artifact.path} says its fingerprint is {artifact.fingerprint}, expected {key}")
        return artifact

    def _build(self, key: str, build: Callable[[Path, Path], dict[str, Any]]) -> None:
        work = self.root / "work" / key[:32]
        work.mkdir(exist_ok=True)
        for begun in (self.root / "objects").glob(f".{key[:12]}-*"):
            shutil.rmtree(begun, ignore_errors=True)  # by one who was killed: the lock is ours
        # On the same file system as its destination, so that publishing is one rename.
        folder = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=self.root / "objects"))
        try:
            manifest = build(folder, work)
            write_json(folder / MANIFEST, {**manifest, "fingerprint": key, "files": files_of(folder)})
            folder.chmod(0o755)
            _sync(folder)
            folder.rename(self.path(key))
            _sync_folder(self.path(key).parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _sync(folder: Path) -> None:
    for entry in folder.rglob("*"):
        if entry.is_dir():
            _sync_folder(entry)
        else:
            with entry.open("rb") as stream:
                os.fsync(stream.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
