"""Handle requests to stop, by SIGTERM or Ctrl-C: at once where that is safe, else when the running work allows it.

An exception out of a signal handler may come anywhere, also half-way through an optimizer step. So a training loop
defers: the request is remembered, and raised between two steps, when what is done has been saved. A second request
stops at once.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from alignlab.errors import Preempted

_REASONS = {
    signal.SIGTERM: ("asked to stop (SIGTERM)", 128 + signal.SIGTERM),
    signal.SIGINT: ("interrupted from the keyboard", 128 + signal.SIGINT),
    signal.SIGHUP: ("the terminal was closed (SIGHUP)", 128 + signal.SIGHUP),
}
_pending: list[Preempted] = []
_deferring: list[bool] = []


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into `Preempted`; does nothing outside of the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored on purpose (nohup, a job in the background) stays ignored.
    heeded = [number for number in _REASONS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, _stop) for number in heeded}
    try:
        yield
    finally:
        _pending.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Context in which a first request waits until `requested` is called, or until the end."""
    _deferring.append(True)
    try:
        yield
    finally:
        _deferring.pop()
    if _pending and not _deferring:
        raise _pending.pop()


def requested() -> Preempted | None:
    """The request that is waiting, to be raised by the code that deferred it."""
    return _pending[0] if _pending else None


def _stop(number: int, _: FrameType | None) -> None:
    reason, code = _REASONS[signal.Signals(number)]
    request = Preempted(f"{reason}; what is done is kept, and the same command continues from there", code)
    if _deferring and not _pending:
        _pending.append(request)
        return
    for other in _REASONS:
        signal.signal(other, signal.SIG_IGN)  # what follows must be able to finish
    raise request
