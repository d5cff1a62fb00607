"""Runs that use a store: one small file per run in the store, `runs/<digest of the folder>.json`.

A run registers before it asks the store for anything, under a lock (`guard`) that the garbage collection holds while it
decides. So what a run relies on is either registered before the decision, or looked up after it.
"""

import contextlib
import datetime
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from alignlab.artifact import MANIFEST, write_json
from alignlab.errors import StoreError
from alignlab.pipeline.run_folder import is_alive, status_of
from alignlab.pipeline.waiting import SILENT, Wait, held

RUNS: Final = "runs"
BEGAN: Final = "began.json"
"""Notes when the registry began, in a store that held artifacts before: runs from before then are not in it."""


@dataclass(frozen=True)
class Known:
    """A run that used the store.

    Args:
        folder: of the run, where it is now; None where it is not there any more.
        keys: of everything that it needs: all its stages, made or not, and their inputs.
        began: seconds since 1970.
        process: its `pid` and `host`.
    """

    folder: Path | None
    keys: frozenset[str]
    began: float
    process: Mapping[str, Any]

    @property
    def is_running(self) -> bool:
        """Whether its process may still be at work; a process on another host may, where its folder is not seen."""
        if self.folder is None:
            return is_alive(self.process)
        status = _status(self.folder)
        return status.get("status", "running") == "running" and is_alive(status or self.process)

    @property
    def is_elsewhere(self) -> bool:
        """Whether another host began it."""
        return bool(self.process.get("host") != socket.gethostname())

    @property
    def last(self) -> float:
        """Time of its last sign of life, in seconds since 1970."""
        text = _status(self.folder).get("updated") if self.folder else None
        with contextlib.suppress(ValueError, TypeError):
            return max(self.began, datetime.datetime.fromisoformat(str(text)).timestamp())
        return self.began


@dataclass
class Registration:
    """The entry of the run that is going on; grows by what turns out to be needed."""

    root: Path
    folder: Path
    wait: Wait = SILENT
    keys: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.time)

    def add(self, keys: Iterable[str]) -> None:
        """Note what the run relies on from now on, where the store can be written to."""
        self.keys.update(keys)
        about = {"pid": os.getpid(), "host": socket.gethostname(), "began": self.began, "keys": sorted(self.keys)}
        places = {"folder": str(self.folder), "from_store": os.path.relpath(self.folder, self.root.resolve())}
        try:
            with guard(self.root, self.wait):
                _begin(self.root)
                write_json(self.root / RUNS / f"{_name(self.folder)}.json", {**places, **about})
        except OSError:
            return  # a store that is read only, from which nothing is removed


def register(root: Path, folder: Path, keys: Iterable[str], wait: Wait = SILENT) -> Registration:
    """Enter a run into the registry of a store, before it asks for anything.

    Args:
        wait: what is said while a garbage collection decides.
    """
    entry = Registration(root, folder.resolve(), wait)
    entry.add(keys)
    return entry


@contextlib.contextmanager
def guard(root: Path, wait: Wait = SILENT) -> Iterator[None]:
    """Context within which either one run registers or one collection decides."""
    (root / "locks").mkdir(parents=True, exist_ok=True)
    with held(root / "locks" / "gc.lock", wait):
        yield


def known_runs(root: Path) -> list[Known]:
    """Every run in the registry, the earliest first."""
    found = [_known(root, file) for file in (root / RUNS).glob("*.json") if file.name != BEGAN]
    return sorted(found, key=lambda run: run.began)


def began(root: Path) -> float:
    """When the registry began, in seconds since 1970; 0 where it has been there from the start."""
    file = root / RUNS / BEGAN
    if not (root / RUNS).is_dir():
        return time.time()
    return float(json.loads(file.read_text(encoding="utf-8"))["began"]) if file.is_file() else 0.0


def _begin(root: Path) -> None:
    if (root / RUNS).is_dir():
        return
    objects = root / "objects"
    is_old = objects.is_dir() and any(objects.iterdir())
    (root / RUNS).mkdir()
    if is_old:
        write_json(root / RUNS / BEGAN, {"began": time.time()})


def _known(root: Path, file: Path) -> Known:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        places = [root.resolve() / found["from_store"], Path(found["folder"])]
        keys, when = frozenset(map(str, found["keys"])), float(found["began"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{file} cannot be read ({error}); remove it if its run is not needed any more") from error
    here = next((Path(os.path.normpath(p)) for p in places if (p / MANIFEST).is_file() or _status(p)), None)
    return Known(here, keys, when, {key: found.get(key) for key in ("pid", "host")})


def _status(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return status_of(folder)
    return {}


def _name(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]
