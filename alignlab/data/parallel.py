"""The results of a function on many items, in their order, from several processes where that pays."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from typing import Any, Final, TypeVar

from alignlab.errors import AlignlabError

W = TypeVar("W")
I = TypeVar("I")  # noqa: E741  # an item
O = TypeVar("O")  # noqa: E741  # an outcome

PAYS_FROM: Final = 2**25
"""Bytes of input from which starting processes (a second each) is worth it."""
_MOST: Final = 16
_AHEAD: Final = 3
"""Items per process that are under way or wait to be taken, so that memory does not grow with their number."""

_function: Callable[[Any, Any], Any]
_work: Any


def in_order(function: Callable[[W, I], O], work: W, items: Iterable[I], size: int) -> Iterator[O]:
    """`function(work, item)` of each item, in their order.

    Args:
        function: at the top of a module, without effects; what it gives depends on nothing but its arguments.
        work: the same for all items.
        items: taken as they are needed.
        size: of the input in bytes; where it is small, everything happens in this process.
    """
    count = _processes()
    if size < PAYS_FROM or count < 2:
        yield from (function(work, item) for item in items)
        return
    state = pickle.dumps((function, work))
    context = multiprocessing.get_context("spawn")  # threads of torch and tokenizers do not survive a fork
    with _no_interrupts():
        pool = ProcessPoolExecutor(count, context, _begin, (state,))
        running = _filled(pool, deque(), items := iter(items), count)
    try:
        while running:
            outcome = running.popleft().result()
            running = _filled(pool, running, items, count)
            yield outcome
    except BrokenProcessPool as error:
        raise AlignlabError(
            "a process that tokenises was killed, for want of memory probably; free some, and start the run again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _filled(pool: ProcessPoolExecutor, running: deque[Future[Any]], items: Iterator[Any], count: int) -> Any:
    while len(running) < _AHEAD * count and (item := next(items, None)) is not None:
        running.append(pool.submit(_call, item))
    return running


def _processes() -> int:
    """Processes to start: one per core that this one may use; none from a process that must not have children."""
    if multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _MOST)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Children that start within never see Ctrl-C: this process ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(state: bytes) -> None:
    """Set a worker up; it ends with its parent, even one that was killed."""
    global _function, _work
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process per core is enough
    _function, _work = pickle.loads(state)
    parent = multiprocessing.parent_process()
    assert parent is not None, "see in_order"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(_work, item)
