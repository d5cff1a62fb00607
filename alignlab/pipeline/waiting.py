"""Locks of the store, and what a process says while it waits for another that holds one.

The holder writes down who it is and what it makes, next to the lock, because a lock itself does not say. A process that
waits reads that and reports it: after 3 seconds, then after ever longer times, at most 5 minutes, and once at the end.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from alignlab.artifact import write_json

Say = Callable[[str], None]
FIRST: Final = 3.0
"""Seconds until the first report."""
LONGEST: Final = 300.0
"""Seconds between two reports, at most."""


@dataclass(frozen=True)
class Wait:
    """How to wait for a lock.

    Args:
        what: is made under the lock, for those who wait.
        say: receives the reports.
    """

    what: str = ""
    say: Say | None = None


SILENT: Final = Wait()
"""Wait without a word."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as it wrote itself down.

    Args:
        pid: of the process.
        host: that it runs on.
        what: it makes.
        since: seconds since 1970.
    """

    pid: int
    host: str
    what: str
    since: float

    @classmethod
    def read(cls, lock: Path) -> "Holder | None":
        """The holder of a lock; None where it has written nothing (yet), or something else."""
        try:
            found: dict[str, Any] = json.loads(_record(lock).read_text(encoding="utf-8"))
            return cls(int(found["pid"]), str(found["host"]), str(found["what"]), float(found["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, which makes {self.what or 'it'}"


@contextlib.contextmanager
def held(lock: Path, wait: Wait) -> Iterator[None]:
    """Context that one process at a time can be in.

    Args:
        lock: its file.
        wait: how to wait for it.
    """
    found = FileLock(lock)
    _acquire(found, lock, wait)
    record = _record(lock)
    try:
        with contextlib.suppress(OSError):
            who = {"pid": os.getpid(), "host": socket.gethostname()}
            write_json(record, {**who, "what": wait.what, "since": time.time()})
        yield
    finally:
        with contextlib.suppress(OSError):
            record.unlink(missing_ok=True)  # before the next holder can write its own
        found.release()


def _record(lock: Path) -> Path:
    return lock.with_suffix(".json")


def _acquire(found: FileLock, lock: Path, wait: Wait) -> None:
    started, pause, holder = time.monotonic(), FIRST, None
    while True:
        try:
            found.acquire(timeout=pause)
            break
        except Timeout:
            waited = time.monotonic() - started
            holder = Holder.read(lock) or holder
            _report(wait, f"waits for {holder or 'another process'}, since {waited:.0f} s")
            pause = min(max(waited, FIRST), LONGEST)
    if (waited := time.monotonic() - started) >= FIRST:
        _report(wait, f"waited {waited:.0f} s for {holder or 'another process'}")


def _report(wait: Wait, text: str) -> None:
    if wait.say is not None:
        wait.say(f"{wait.what}: {text}" if wait.what else text)
