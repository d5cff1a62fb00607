"""The store: artifacts by fingerprint, computed once, published whole or not at all.

A fingerprint is a SHA-256 of canonical JSON: the stage's class and VERSION, its resolved identity, the code of its
classes, the fingerprints of its inputs, the digest of its data. The same fingerprint is the same artifact. A part of a
stage's work that other stages share (`StageContext.once`) is an artifact by a fingerprint of its own.

`alignlab.pipeline.garbage` removes what no run names any more.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignlab.artifact import LINKS, MANIFEST, Artifact, files_of, fingerprint, links_of, write_json
from alignlab.digests import digest_of_file
from alignlab.durable import cause, is_full, put, sync_tree
from alignlab.errors import StoreError
from alignlab.pipeline.waiting import SILENT, Wait, held

RERUN = "rerun"
"""Marks a work folder as that of a rerun."""
PUBLISHED = "published"
"""File of a work folder with the digest of the manifest that its stage is about to publish."""


class Store:
    """Artifacts below one folder, `objects/<fingerprint>`; `work/<fingerprint>` holds what outlives a crash.

    `code/<recipe>.json` has the code with which a recipe (a fingerprint without code) was last used,
    `data/<fingerprint>` what was computed from data and is read by several stages (`keep`), and
    `shared/<recipe>.json` the fingerprints of what a stage asked for that others share.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    def path(self, key: str) -> Path:
        """Where the artifact of a fingerprint is, or would be."""
        return self.root / "objects" / key[:32]

    def has(self, key: str, since: float = 0.0) -> bool:
        """Whether the artifact was published, at `since` (seconds since 1970) or later."""
        manifest = self.path(key) / MANIFEST
        return manifest.is_file() and manifest.stat().st_mtime >= since

    def get_or_build(
        self, key: str, build: Callable[[Path, Path], dict[str, Any]], since: float = 0.0, wait: Wait = SILENT
    ) -> tuple[Artifact, bool]:
        """The artifact of `key`, built if need be by exactly one of all processes that ask for it.

        Args:
            key: its fingerprint.
            build: writes into its first folder and returns the manifest's content; its second folder is kept
                when it fails, for checkpoints, and removed when it succeeds.
            since: an older artifact is built again, and replaced once that has succeeded; seconds since 1970.
            wait: what is said while another process builds it.

        Returns:
            The artifact, and whether it was there already.
        """
        if self.has(key, since):
            self._tidy(key)
            return self._open(key), True
        with self._locked(key, "objects", "work", wait=wait):
            if self.has(key, since):
                return self._open(key), True
            if self.path(key).exists() and not self.has(key):
                raise StoreError(f"{self.path(key)} has lost its {MANIFEST}; delete the folder and run again")
            if self.has(key):
                self._forget_work(key)
            self._build(key, build)
        return self._open(key), False

    def keep(self, identity: Mapping[str, Any], build: Callable[[Path], None], wait: Wait = SILENT) -> Path:
        """The folder of something that is computed from data for several stages, built if need be by one process.

        Args:
            identity: everything that its content follows from, as plain JSON.
            build: writes into the folder.
            wait: what is said while another process builds it.
        """
        key = fingerprint(identity)
        folder = self.root / "data" / key[:32]
        if not folder.is_dir():
            with self._locked(key, "data", wait=wait):
                if not folder.is_dir():
                    self._publish(folder, build)
        with contextlib.suppress(OSError):
            os.utime(folder)  # last use, for `alignlab gc`
        return folder

    def lock(self, key: str) -> FileLock:
        """The lock under which what belongs to a key is made, and removed; its file stays for ever, and is empty."""
        return FileLock(self.root / "locks" / f"{key[:32]}.lock")

    def holder(self, key: str) -> dict[str, Any] | None:
        """The process that makes what belongs to a key at this moment: `pid`, `host`, `since` (seconds since 1970);
        None where none does.

        It is empty where the lock is held and nobody knows by whom. Nothing is written.
        """
        lock = self.root / "locks" / f"{key[:32]}.lock"
        if not lock.is_file() or not is_locked(lock):
            return None
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(lock.with_suffix(".json").read_text(encoding="utf-8")))
        return {}

    @contextlib.contextmanager
    def _locked(self, key: str, *folders: str, wait: Wait) -> Iterator[None]:
        """Context within which no other process makes what belongs to a key.

        Args:
            key: its fingerprint.
            folders: of the store that must be there.
            wait: what is said while another process is in it.
        """
        try:
            for folder in (*folders, "locks"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store_dir: {self.root} cannot be written to ({error}); choose another") from error
        with held(self.root / "locks" / f"{key[:32]}.lock", wait):
            yield

    def has_work(self, key: str) -> bool:
        """Whether an interrupted run left checkpoints to continue from."""
        work = self.root / "work" / key[:32]
        return work.is_dir() and any(work.iterdir())

    def code_of(self, recipe: str) -> dict[str, str]:
        """The code with which a recipe was last used; empty where it is not known."""
        file = self.root / "code" / f"{recipe[:32]}.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    def note_code(self, recipe: str, code: Mapping[str, str]) -> None:
        """Remember the code of a recipe, where the store can be written to."""
        with contextlib.suppress(OSError):
            (self.root / "code").mkdir(parents=True, exist_ok=True)
            if self.code_of(recipe) != code:
                write_json(self.root / "code" / f"{recipe[:32]}.json", dict(code))

    def has_shared(self, recipe: str) -> bool:
        """Whether everything is there that a stage of this recipe asked for, the last time that one ran."""
        file = self.root / "shared" / f"{recipe[:32]}.json"
        with contextlib.suppress(OSError, ValueError, TypeError):  # damaged: it is written again
            return all(self.has(str(key)) for key in json.loads(file.read_text(encoding="utf-8")))
        return False

    def note_shared(self, recipe: str, keys: Sequence[str]) -> None:
        """Remember the fingerprints of what a stage of a recipe asked for, where the store can be written to."""
        with contextlib.suppress(OSError):
            (self.root / "shared").mkdir(parents=True, exist_ok=True)
            write_json(self.root / "shared" / f"{recipe[:32]}.json", list(keys))

    def _forget_work(self, key: str) -> None:
        """Begin a rerun without the checkpoints of the first run; an interrupted rerun keeps its own."""
        work = self.root / "work" / key[:32]
        if not (work / RERUN).exists() or self._has_published(key):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            (work / RERUN).touch()

    def _has_published(self, key: str) -> bool:
        """Whether what is in the work folder of a key has become the artifact that is there."""
        mark = self.root / "work" / key[:32] / PUBLISHED
        return mark.is_file() and mark.read_text(encoding="utf-8") == digest_of_file(self.path(key) / MANIFEST)

    def _open(self, key: str) -> Artifact:
        artifact = Artifact.open(self.path(key))
        if artifact.fingerprint != key:
            raise StoreError(f"{artifact.path} says its fingerprint is {artifact.fingerprint}, expected {key}")
        return artifact

    def _build(self, key: str, build: Callable[[Path, Path], dict[str, Any]]) -> None:
        work = self.root / "work" / key[:32]
        work.mkdir(exist_ok=True)

        def write(folder: Path) -> None:
            manifest = build(folder, work)
            links = {LINKS: found} if (found := links_of(folder)) else {}
            files = files_of(folder, linked=False)
            write_json(folder / MANIFEST, {**manifest, "fingerprint": key, "files": files, **links})
            (work / PUBLISHED).write_text(digest_of_file(folder / MANIFEST), encoding="utf-8")

        self._publish(self.path(key), write)
        shutil.rmtree(work, ignore_errors=True)

    def _tidy(self, key: str) -> None:
        """Remove what a process that was killed after it had published left, unless another one uses it."""
        path, work = self.path(key), self.root / "work" / key[:32]
        begun = list(path.parent.glob(f".{path.name[:12]}-*"))
        if not begun and not work.is_dir():
            return
        with contextlib.suppress(OSError, Timeout), FileLock(self.root / "locks" / f"{key[:32]}.lock", timeout=0):
            if self._has_published(key) or not (work / RERUN).exists():  # a rerun that was interrupted continues
                begun.append(work)
            for folder in begun:
                shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, path: Path, write: Callable[[Path], None]) -> None:
        """Write a folder under another name, and give it its own in one step; its lock is held."""
        short = path.name[:12]
        for begun in path.parent.glob(f".{short}-*"):
            shutil.rmtree(begun, ignore_errors=True)  # left by a process that was killed: the lock is ours
        # On the same file system as its destination, so that publishing is one rename.
        folder = Path(tempfile.mkdtemp(prefix=f".{short}-", dir=path.parent))
        try:
            write(folder)
            folder.chmod(0o755)
            sync_tree(folder)
            if path.exists():  # a rerun
                path.rename(folder.with_name(f"{folder.name}-old"))
            put(folder, path)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, Exception) and not isinstance(error, StoreError) and is_full(error):
                raise StoreError(
                    f"the disk is full ({cause(error)}); finished stages and the last resumable checkpoint are kept: "
                    f"make space, and the same command continues"
                ) from error
            raise
        shutil.rmtree(folder.with_name(f"{folder.name}-old"), ignore_errors=True)


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock on a file; False where the file system has no locks."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
