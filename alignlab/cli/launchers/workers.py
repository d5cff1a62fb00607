"""Processes that run jobs one after another, each of them apart from the others."""

import io
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn

from alignlab import stopping
from alignlab.cli.launchers.base import Order
from alignlab.cli.sweeps.sweep import ask
from alignlab.errors import Preempted


class WorkerDied(Exception):
    """The process ended in the middle of a job."""


class Worker:
    """One process.

    Args:
        environment: variables of its own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half-way
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, dict(environment)))
        self._process.start()
        theirs.close()

    def run(self, order: Order) -> JobReturn:
        """Run a job and wait for its end.

        Raises:
            WorkerDied: the process was killed, or crashed.
        """
        try:
            self._pipe.send(order)
            found: JobReturn = self._pipe.recv()
            return found
        except (EOFError, ConnectionError):
            self._process.join()
            raise WorkerDied(f"its process {self._process.pid} {_how(self._process.exitcode)}") from None

    def close(self) -> None:
        """Let it end: it is idle."""
        self._pipe.close()
        self._process.join()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"was ended by {name}" + (" (killed, or out of memory)" if -code == signal.SIGKILL else "")
    return f"ended with exit code {code}"


# ---- in the other process --------------------------------------------------------------------------------------------
def serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    """Run jobs until there are no more.

    A session of its own: the terminal's Ctrl-C reaches the sweep alone, which asks each job once.
    """
    os.environ.update(environment)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _between_jobs)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            order = pipe.recv()
            pipe.send(_run(order))
        except (EOFError, ConnectionError):  # no more jobs, or the sweep is gone
            return


def _between_jobs(_: int, __: FrameType | None) -> None:
    """A request to stop when there is nothing to save: the sweep sends no further job then."""


def _end_with_parent() -> None:
    """A sweep that was killed leaves no jobs behind: they save their work and end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    ask()


def _run(order: Order) -> JobReturn:
    columns = shutil.get_terminal_size().columns
    prefix = f"[{order.number}] "
    os.environ["COLUMNS"] = str(max(40, columns - len(prefix)))
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Prefixed(stream, prefix) for stream in before)
    try:
        with stopping.heard():  # from here to the end, so that no request is lost
            return order.run()
    except Preempted:
        return order.ended()
    except Exception as error:
        traceback.print_exc()
        return order.ended(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        os.environ["COLUMNS"] = str(columns)


class Prefixed(io.TextIOBase):
    """Text in whole lines that begin with the number of a job, so that the lines of several jobs can be told apart.

    Args:
        stream: where they go.
        prefix: of each line.
    """

    def __init__(self, stream: Any, prefix: str) -> None:
        self._stream, self._prefix, self._begun = stream, prefix, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return str(getattr(self._stream, "encoding", None) or "utf-8")

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """That of the stream, for programs that are started."""
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
        self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Write what has been begun, too."""
        if self._begun:
            self.write("\n")
