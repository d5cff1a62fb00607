"""The other processes of a run, as the first one sees them: who has joined, what they answer, who was lost.

Each holds a connection to the first one, which the system closes with the process, and gives a sign of life every few
seconds. `alignlab.pipeline.follower` is the other end.
"""

import contextlib
import pickle
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from typing import Any, Final

from alignlab.errors import AlignlabError
from alignlab.launched import Place
from alignlab.pipeline.links import LOCAL, how_ended, keep_alive

LEAVING: Final = 5.0
"""Seconds that processes are given to end by themselves."""
SILENCE: Final = 60.0
"""Seconds without a sign of life after which a process is taken for lost."""


class RankLost(AlignlabError):
    """A process of the run is missing, has died, stands still or has failed; its message names it."""


class Members:
    """All processes but the first.

    Args:
        place: of the first one.
        processes: those that it has started, by rank; empty where a launcher did.
        on_lost: called, in a thread, when one is lost.
    """

    def __init__(
        self, place: Place, processes: Mapping[int, "subprocess.Popen[bytes]"], on_lost: Callable[[RankLost], None]
    ) -> None:
        self._place, self._processes, self._on_lost = place, processes, on_lost
        key = secrets.token_bytes(16)
        host = LOCAL if place.address == LOCAL else ""
        self._listener = Listener((host, 0), backlog=place.world, authkey=key)
        self._port = int(self._listener.address[1])
        self.address = pickle.dumps((self._port, key))
        """Where they join: a port of this machine, and a key."""
        self._links: dict[int, Connection] = {}
        self._about: dict[int, str] = {}
        self._silent: dict[int, float] = {}
        self._done: dict[int, Any] = {}
        self._lost: RankLost | None = None
        self._change = threading.Condition(threading.RLock())
        self._is_closed = False
        for action in (self._accept, self._watch):
            threading.Thread(target=action, daemon=True, name=f"members-{action.__name__}").start()

    # ---- joining --------------------------------------------------------------------------------------------------
    def gather(self, timeout: float) -> None:
        """Wait, for so many seconds, until every process has joined.

        Raises:
            RankLost: names those that did not.
        """
        end, wanted = time.monotonic() + timeout, self._place.world - 1
        with self._change:
            while len(self._links) < wanted and not self._lost and not (dead := self._ended_early()):
                if time.monotonic() > end:
                    raise RankLost(self._missing(timeout))
                self._change.wait(0.2)
        if self._lost:
            raise self._lost
        if len(self._links) < wanted:
            raise RankLost(f"{self._named(dead[0])} did not join: it {how_ended(self._processes[dead[0]].returncode)}")

    def _ended_early(self) -> list[int]:
        return [r for r, p in self._processes.items() if r not in self._links and p.poll() is not None]

    def _missing(self, timeout: float) -> str:
        place, missing = self._place, [r for r in range(1, self._place.world) if r not in self._links]
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
                self._links[rank], self._about[rank], self._silent[rank] = link, about, 0.0
                self._change.notify_all()

    # ---- asking ---------------------------------------------------------------------------------------------------
    def send(self, messages: Mapping[int, object]) -> None:
        """Tell each of them what to do; earlier answers are forgotten.

        Raises:
            RankLost: one is lost.
        """
        self._done.clear()
        for rank, link in list(self._links.items()):
            try:
                link.send(messages[rank])
            except OSError as error:
                raise self.lost_soon() or RankLost(f"{self._named(rank)} cannot be reached: {error}") from error

    def answers(self) -> list[Any]:
        """The result of each for its message, in order; waits for all.

        Raises:
            RankLost: one died or failed.
        """
        with self._change:
            while len(self._done) < self._place.world - 1 and not self._lost:
                self._change.wait(1.0)
        if self._lost:
            raise self._lost
        return [self._done[rank] for rank in sorted(self._done)]

    def lost_soon(self) -> RankLost | None:
        """The process that was lost; it may have closed its other connections a moment before this one."""
        with self._change:
            self._change.wait_for(lambda: self._lost is not None, LEAVING)
        return self._lost

    # ---- watching -------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        while not self._is_closed:
            links, began = {link: rank for rank, link in list(self._links.items())}, time.monotonic()
            if not links:
                time.sleep(0.1)
                continue
            ready = wait(list(links), timeout=0.1)
            for link, rank in links.items():
                if link in ready:
                    self._hear(rank, link)
            # If this process was stopped itself (Ctrl-Z, a scheduler that suspends jobs), that was nobody's silence.
            self._count_silence(min(time.monotonic() - began, 1.0))

    def _hear(self, rank: int, link: Connection) -> None:
        try:
            message = link.recv()
        except (EOFError, OSError):
            if not self._is_closed:
                self._lose(rank, self._how_lost(rank))
            return
        self._silent[rank] = 0.0
        if message[0] == "done":
            with self._change:
                self._done[rank] = message[1]
                self._change.notify_all()
        elif message[0] == "failed":
            self._lose(rank, f"failed: {message[1]}", message[2], keep=link)

    def _count_silence(self, seconds: float) -> None:
        for rank, link in list(self._links.items()):
            self._silent[rank] += seconds
            if self._silent[rank] > SILENCE and not self._is_closed:
                self._lose(rank, f"has given no sign of life for {SILENCE:g} s (was it stopped?)")
                if rank in self._processes:
                    self._processes[rank].kill()  # which also ends an exchange that this process waits in
                link.close()

    def _lose(self, rank: int, how: str, details: str = "", keep: Connection | None = None) -> None:
        with self._change:
            if keep is None:
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
        self._on_lost(self._lost)

    def _how_lost(self, rank: int) -> str:
        process = self._processes.get(rank)
        if process is None:
            return "was lost: its connection was closed"
        with contextlib.suppress(subprocess.TimeoutExpired):
            return how_ended(process.wait(LEAVING))
        return "was lost: it closed its connection"

    def _named(self, rank: int) -> str:
        about = self._about.get(rank)
        return f"rank {rank} of {self._place.world}" + (f" ({about})" if about else "")

    # ---- ending ---------------------------------------------------------------------------------------------------
    def hold(self) -> None:
        """Have those that have failed, too, wait for the end."""
        self._tell(("hold",))

    def end(self, code: int) -> None:
        """End them, with an exit code; those that this process has started are gone when it returns."""
        if not self._processes:  # a launcher started them, and they may be on their way
            with contextlib.suppress(RankLost):
                self.gather(LEAVING)
        self._is_closed = True
        self._tell(("end", code))
        for process in self._processes.values():
            try:
                process.wait(LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _tell(self, message: object) -> None:
        for link in list(self._links.values()):
            with contextlib.suppress(OSError):
                link.send(message)

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(OSError):  # so that the thread that accepts ends
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
        for link in self._links.values():
            link.close()
        self._listener.close()
