"""Ranks end with the process that spawned them, and until then nobody else trains in their work folder.

A command that is killed (SIGKILL, out of memory) cannot end its ranks. They would train for a minute, until their next
exchange fails, while the same command, started again, trains in the same folder. So each rank watches its parent, and
all of them hold the lock of the work folder: the system frees it when the last of them has ended.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl

LOCK: Final = "training.lock"
"""In the work folder of a stage."""
_PR_SET_PDEATHSIG: Final = 1


class Ranks(pl.Callback):
    """Ends a rank with its parent, and holds the lock in every process that a strategy spawns.

    Args:
        lock: descriptor of the locked file; None where the file system has no locks.
    """

    def __init__(self, lock: int | None) -> None:
        self._lock = lock
        self._is_rank = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watch the parent, in a process that was spawned."""
        if self._is_rank:
            end_with_parent()

    def __getstate__(self) -> dict[str, Any]:
        """State for a process that is being spawned, which inherits the descriptor."""
        return {"_lock": None if self._lock is None else DupFd(self._lock)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over the descriptor: this is a rank."""
        self._lock = None if state["_lock"] is None else state["_lock"].detach()
        self._is_rank = True


@contextlib.contextmanager
def held(work: Path, say: Callable[[str], object]) -> Iterator[Ranks]:
    """Context in which this process and its ranks alone train in a folder.

    Args:
        work: the folder.
        say: told where ranks of an earlier command have yet to end.
    """
    descriptor = os.open(work / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield Ranks(descriptor if _locked(descriptor, say) else None)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, say: Callable[[str], object]) -> bool:
    try:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waits for the ranks of an earlier command, which was killed, to end")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except (ImportError, OSError):  # this file system has no locks
        return False
    return True


def end_with_parent() -> None:
    """End this process, a spawned one, at once when the one that spawned it ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # else within a moment, by the thread
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="watch-parent").start()


def _watch(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
