"""Collect what no run needs any more: mark from the manifests of runs, then remove the rest.

Kept are the artifacts that a run of the last days names, or will make, with all their ancestors; everything whose lock
is held; what a process at work may still write to. What goes is moved into the store's `trash` in one step under its
lock, and removed from there, so that nobody sees half of it: a run finds an artifact whole, or makes it again.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from filelock import Timeout

from alignlab.artifact import MANIFEST
from alignlab.errors import StoreError
from alignlab.pipeline import registry
from alignlab.pipeline.registry import Known
from alignlab.pipeline.run_folder import status_of
from alignlab.pipeline.store import Store, is_locked
from alignlab.pipeline.waiting import Wait

DAY: Final = 86400.0
SHORT: Final = 32
"""Digits of a fingerprint in a folder's name."""
TRASH: Final = "trash"

Kind = Literal["artifact", "checkpoint", "data", "unfinished", "trash"]


@dataclass(frozen=True)
class Entry:
    """One folder that can go.

    Args:
        path: the folder.
        kind: an artifact; the checkpoints of a stage that did not end; what was computed from data; a publication that
            was interrupted; an earlier collection that was interrupted.
        name: stage that made it, where that is known.
        bytes: of its files.
        seconds: since it was last changed, or used.
    """

    path: Path
    kind: Kind
    name: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Survey:
    """The store as a collection finds it.

    Args:
        goes: what no run needs.
        runs: that are known.
        recent: those of the last days, or at work.
        lost: those of them that are not where they were.
        kept: number of artifacts that stay.
        unsure: artifacts from before the registry, which a run may need that the store does not know.
    """

    goes: Sequence[Entry]
    runs: int
    recent: int
    lost: int
    kept: int
    unsure: int


def survey(
    store: Store, days: float, runs: Sequence[Known], is_complete: bool = False, heeds_lost: bool = True
) -> Survey:
    """Find what no run needs. Nothing is written.

    Args:
        store: the store.
        days: runs of so many last days are heeded.
        runs: that are known.
        is_complete: no other runs used the store before it had a registry.
        heeds_lost: runs of the last days count although their folders are not where they were; the folder of a run
            that was moved is as good as it was before.

    Raises:
        StoreError: no run is known, so that nothing can be said.
    """
    now = time.time()
    if not runs:
        raise StoreError(
            f"{store.root}: no run is known that used it, so nothing is deleted; name the folders of your runs: "
            f"alignlab gc runs"
        )
    recent = [run for run in runs if _is_recent(run, now - days * DAY, heeds_lost)]
    marked = _with_ancestors(store, {key[:SHORT] for run in recent for key in run.keys})
    since = 0.0 if is_complete else registry.began(store.root)
    artifacts = list(_folders(store.root / "objects"))
    loose = [path for path in artifacts if path.name not in marked and not _is_held(store, path.name)]
    unsure = [path for path in loose if _changed(path) < since]
    found = [_entry(path, "artifact", now) for path in loose if path not in unsure]
    found += _leftovers(store, marked, now, days, any(run.is_running for run in recent))
    lost = sum(run.folder is None for run in recent)
    return Survey(found, len(runs), len(recent), lost, len(artifacts) - len(loose), len(unsure))


def delete(
    store: Store, days: float, folders: Sequence[Path], is_complete: bool = False, heeds_lost: bool = True
) -> tuple[Survey, list[Entry]]:
    """Remove what no run needs; returns what was found, and what went.

    Args:
        store: the store.
        days: runs of so many last days are heeded.
        folders: of runs that the registry may lack.
        is_complete: no other runs used the store before it had a registry.
        heeds_lost: see `survey`.
    """
    deciding = Wait("the choice of what can be removed")
    with registry.guard(store.root, deciding):  # no run begins while this is decided; one that begins later looks again
        found = survey(store, days, all_runs(store, folders), is_complete, heeds_lost)
        gone = [entry for entry in found.goes if _to_trash(store, entry)]
    shutil.rmtree(store.root / TRASH, ignore_errors=True)
    return found, gone


def all_runs(store: Store, folders: Iterable[Path]) -> list[Known]:
    """The runs that the store knows, and those in some folders."""
    known = registry.known_runs(store.root)
    seen = {run.folder.resolve() for run in known if run.folder is not None}
    return [*known, *(_read(folder) for folder in folders if folder.resolve() not in seen)]


def _read(folder: Path) -> Known:
    """A run that is not in the registry, by its manifest."""
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        stages = content.get("stages") or {}
        keys = frozenset(str(stage["fingerprint"]) for stage in stages.values() if "fingerprint" in stage)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise StoreError(f"{file} cannot be read ({error}), so what it needs is not known; remove the run") from error
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Known(folder, keys, _changed(folder), status_of(folder))
    return Known(folder, keys, _changed(folder), {})


# ---- marking ---------------------------------------------------------------------------------------------------------
def _is_recent(run: Known, since: float, heeds_lost: bool) -> bool:
    if run.folder is None:  # moved, or removed; or on a disk of another host that is not seen from here
        return (heeds_lost or run.is_elsewhere) and run.last >= since
    return run.last >= since or run.is_running


def _with_ancestors(store: Store, keys: Iterable[str]) -> set[str]:
    """The keys, with everything that they were made of."""
    found, todo = set[str](), set(keys)
    while todo:
        key = todo.pop()
        found.add(key)
        todo |= {k[:SHORT] for k in _made_of(_manifest(store.root / "objects" / key))} - found
    return found


def _made_of(manifest: Mapping[str, Any]) -> Iterator[str]:
    inputs = manifest.get("inputs")
    for node in inputs.values() if isinstance(inputs, Mapping) else ():
        if isinstance(node, Mapping) and "fingerprint" in node:
            yield str(node["fingerprint"])
    asked = manifest.get("asked")
    yield from map(str, asked if isinstance(asked, list) else ())


def _manifest(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


# ---- what goes -------------------------------------------------------------------------------------------------------
def _leftovers(store: Store, marked: set[str], now: float, days: float, at_work: bool) -> list[Entry]:
    """Checkpoints, interrupted publications, data and trash."""

    def is_old(path: Path) -> bool:
        return now - _latest(path) > days * DAY

    works = [p for p in _folders(store.root / "work") if p.name not in marked and not _is_held(store, p.name)]
    found = [_entry(path, "checkpoint", now) for path in works if is_old(path)]
    for home in ("objects", "data"):
        begun = [p for p in _folders(store.root / home, hidden=True) if not _is_held(store, p.name[1:13])]
        found += [_entry(path, "unfinished", now) for path in begun if is_old(path)]
    if not at_work:  # a process may have it mapped into its memory, and touched it long ago
        data = [p for p in _folders(store.root / "data") if now - _changed(p) > days * DAY]
        found += [_entry(path, "data", now) for path in data if not _is_held(store, path.name)]
    return [*found, *(_entry(path, "trash", now) for path in _folders(store.root / TRASH))]


def _is_held(store: Store, key: str) -> bool:
    """Whether a process holds the lock of a key, or of one that begins so."""
    locks = store.root / "locks"
    files = [locks / f"{key}.lock"] if len(key) == SHORT else locks.glob(f"{key}*.lock")
    return any(is_locked(file) for file in files)


def _folders(home: Path, hidden: bool = False) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(p for p in home.iterdir() if p.is_dir() and p.name.startswith(".") == hidden)


def _entry(path: Path, kind: Kind, now: float) -> Entry:
    name = str(_manifest(path).get("name") or _manifest(path).get("asked_by") or "")
    return Entry(path, kind, name, _bytes(path), max(0.0, now - _changed(path)))


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, file)).st_size
    return total


def _changed(path: Path) -> float:
    """When an artifact was published, or another folder changed; 0 where it is gone by now."""
    with contextlib.suppress(OSError):
        file = path / MANIFEST
        return (file if file.is_file() else path).stat().st_mtime
    return 0.0


def _latest(folder: Path) -> float:
    """The latest change of anything in a folder."""
    with contextlib.suppress(OSError):
        return max(p.lstat().st_mtime for p in (folder, *folder.rglob("*")))
    return time.time()  # somebody is changing it now


def _to_trash(store: Store, entry: Entry) -> bool:
    """Take a folder away in one step; False where a process has taken its lock, or it is gone."""
    if entry.kind == "trash":
        return True
    name = entry.path.name
    key = name if entry.kind != "unfinished" else _key_of(store, name[1:13])
    (store.root / TRASH).mkdir(exist_ok=True)
    try:
        with store.lock(key).acquire(timeout=0):
            entry.path.rename(store.root / TRASH / f"{name.lstrip('.')}-{secrets.token_hex(4)}")
    except (Timeout, FileNotFoundError):
        return False
    return True


def _key_of(store: Store, short: str) -> str:
    """The key whose lock covers an unfinished folder."""
    return next((file.stem for file in (store.root / "locks").glob(f"{short}*.lock")), short)
