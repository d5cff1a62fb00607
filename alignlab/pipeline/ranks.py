"""The processes of one run: the first walks the pipeline, the others compute stages with it.

`Leader` is in the first process. It has the others join, sends them each stage that all of them compute, and learns at
once when one is lost: each holds a connection to it, which the system closes with the process. `alignlab.pipeline.
follower` is the other end. What the processes exchange while they compute goes through torch's process group.

Left out: continuing with fewer processes. The same command starts them all again, from the last checkpoint.
"""

import contextlib
import os
import pickle
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from typing import Any, Final, TypeVar

from alignlab import distributed
from alignlab.errors import AlignlabError
from alignlab.launched import Place
from alignlab.pipeline.links import Meeting, how_ended, keep_alive
from alignlab.pipeline.shared_job import Job
from alignlab.stage import Runtime

T = TypeVar("T")

GRACE: Final = 20.0
"""Seconds in which the first process has to notice by itself that another one was lost, before it is ended."""
LEAVING: Final = 5.0
"""Seconds that processes are given to end by themselves."""


class RankLost(AlignlabError):
    """A process of the run is missing, has died or has failed; its message names it."""


@dataclass
class Leader:
    """The first of several processes.

    Args:
        place: its own.
        processes: those that it has started, by rank; empty where a launcher did.
    """

    place: Place
    processes: Mapping[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    timeout: float = 120.0
    """Seconds to wait for processes that have not joined."""
    code: int = 1
    """Exit code of all processes, once it is known."""
    on_stuck: Callable[[RankLost], None] | None = None
    """Called before this process is ended because it waits for one that was lost."""

    def __post_init__(self) -> None:
        self._meeting, key = Meeting(self.place), secrets.token_bytes(16)
        self._listener = Listener(("", 0), backlog=self.place.world, authkey=key)
        self._links: dict[int, Connection] = {}
        self._about: dict[int, str] = {}
        self._done: dict[int, Any] = {}
        self._lost: RankLost | None = None
        self._change = threading.Condition(threading.RLock())
        self._is_closed = self._has_group = False
        self._port = int(self._listener.address[1])
        self._meeting.set("leader", pickle.dumps((self._port, key)))
        for action in (self._accept, self._watch):
            threading.Thread(target=action, daemon=True, name=f"ranks-{action.__name__}").start()

    @property
    def port(self) -> int:
        """At which the processes meet."""
        return self._meeting.port

    # ---- joining --------------------------------------------------------------------------------------------------
    def gather(self, timeout: float) -> None:
        """Wait, for so many seconds, until every process has joined.

        Raises:
            RankLost: names those that did not.
        """
        end, wanted = time.monotonic() + timeout, self.place.world - 1
        with self._change:
            while len(self._links) < wanted and not self._lost and not (dead := self._ended_early()):
                if time.monotonic() > end:
                    raise RankLost(self._missing(timeout))
                self._change.wait(0.2)
        if self._lost:
            raise self._lost
        if len(self._links) < wanted:
            raise RankLost(f"{self._named(dead[0])} did not join: it {how_ended(self.processes[dead[0]].returncode)}")

    def _ended_early(self) -> list[int]:
        return [r for r, p in self.processes.items() if r not in self._links and p.poll() is not None]

    def _missing(self, timeout: float) -> str:
        place, missing = self.place, [r for r in range(1, self.place.world) if r not in self._links]
        named = f"rank {missing[0]}" if len(missing) == 1 else f"ranks {', '.join(map(str, missing))}"
        return (
            f"{named} of {place.world} did not join within {timeout:g} s: is the command started there too, with the "
            f"same number of processes, and can that machine reach {place.address}:{place.port}? Raise "
            f"runtime.timeout (seconds) where it starts slowly"
        )

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                link = self._listener.accept()
                _, rank, about = link.recv()
            except (AuthenticationError, EOFError, OSError):
                continue
            keep_alive(link)
            with self._change:
                self._links[rank], self._about[rank] = link, about
                self._change.notify_all()

    # ---- computing ------------------------------------------------------------------------------------------------
    def run(self, job: Job, own: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Have every process compute a stage; what this one's part returns.

        Raises:
            RankLost: another process died or failed.
        """
        self._send(dict.fromkeys(range(1, self.place.world), ("run", job)))
        try:
            self._join_group(job.runtime)
            with distributed.together():
                metrics = own()
            self._wait_for_all()
        except AlignlabError:
            raise
        except Exception as error:
            if lost := self._lost_soon():
                raise lost from error
            raise
        return metrics

    def call(self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], own: Callable[[], T]) -> list[T]:
        """See `alignlab.distributed.Helpers`."""
        messages = [("call", function, given) for given in arguments]
        self._send(dict(enumerate(messages, start=1)))
        mine = own()
        self._wait_for_all()
        return [mine, *(self._done[rank] for rank in sorted(self._done))]

    def _join_group(self, runtime: Runtime) -> None:
        if not self._has_group:
            distributed.join(self._meeting.of_group(), self.place.rank, self.place.world, runtime.device)
            self._has_group = True

    def _send(self, messages: Mapping[int, object]) -> None:
        """Tell each of the others what to do, once all have joined."""
        if self._lost is not None:
            raise self._lost
        self.gather(self.timeout)
        self._done.clear()
        for rank, link in list(self._links.items()):
            try:
                link.send(messages[rank])
            except OSError as error:
                raise self._lost_soon() or RankLost(f"{self._named(rank)} cannot be reached: {error}") from error

    def _wait_for_all(self) -> None:
        with self._change:
            while len(self._done) < self.place.world - 1 and not self._lost:
                self._change.wait(1.0)
        if self._lost:
            raise self._lost

    def _lost_soon(self) -> RankLost | None:
        """The process that was lost; it may have closed its other connections a moment before this one."""
        with self._change:
            self._change.wait_for(lambda: self._lost is not None, LEAVING)
        return self._lost

    # ---- watching -------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        while not self._is_closed:
            links = {link: rank for rank, link in self._links.items()}
            if not links:
                time.sleep(0.1)
                continue
            for link, rank in [(k, r) for k, r in links.items() if k in wait(list(links), timeout=0.1)]:
                try:
                    self._take(rank, link.recv())
                except (EOFError, OSError):
                    if not self._is_closed:
                        self._lose(rank, self._how_lost(rank))

    def _take(self, rank: int, message: tuple[Any, ...]) -> None:
        if message[0] == "done":
            with self._change:
                self._done[rank] = message[1]
                self._change.notify_all()
        else:
            self._lose(rank, f"failed: {message[1]}", message[2])

    def _lose(self, rank: int, how: str, details: str = "") -> None:
        with self._change:
            self._links.pop(rank, None)
            if self._lost is not None:
                return
            self._lost = RankLost(
                f"{self._named(rank)} {how}; the others are ended. What is done is kept, and the same command "
                f"continues from the last checkpoint"
            )
            self._change.notify_all()
        if details:
            print(details, file=sys.stderr, flush=True)
        if self._has_group:
            threading.Thread(target=self._end_if_stuck, args=(self._lost,), daemon=True).start()

    def _how_lost(self, rank: int) -> str:
        process = self.processes.get(rank)
        if process is None:
            return "was lost: its connection was closed"
        with contextlib.suppress(subprocess.TimeoutExpired):
            return how_ended(process.wait(LEAVING))
        return "was lost: it closed its connection"

    def _named(self, rank: int) -> str:
        about = self._about.get(rank)
        return f"rank {rank} of {self.place.world}" + (f" ({about})" if about else "")

    def _end_if_stuck(self, error: RankLost) -> None:
        """End this process where it still waits for one that is gone (NCCL does not notice by itself)."""
        time.sleep(GRACE)
        if self._is_closed:
            return
        if self.on_stuck is not None:
            self.on_stuck(error)
        self.close(1)
        os._exit(1)

    # ---- ending ---------------------------------------------------------------------------------------------------
    def close(self, code: int) -> None:
        """End the other processes, with the exit code that this one will have."""
        if self._is_closed:
            return
        if not self.processes:  # a launcher started them, and they may be on their way
            with contextlib.suppress(RankLost):
                self.gather(LEAVING)
        self._is_closed = True
        for link in self._links.values():
            with contextlib.suppress(OSError):
                link.send(("end", code))
        for process in self.processes.values():
            try:
                process.wait(LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._has_group:
            distributed.leave()
        with contextlib.suppress(OSError):  # so that the thread that accepts ends
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
        for link in self._links.values():
            link.close()
        self._listener.close()
