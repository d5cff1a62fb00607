"""The processes of one run: the first walks the pipeline, the others compute stages with it.

`Leader` is in the first process. It has the others join, sends them each stage that all of them compute, and learns of
those that are lost (`alignlab.pipeline.members`). `alignlab.pipeline.follower` is the other end. What the processes
exchange while they compute goes through torch's process group.

Left out: continuing with fewer processes. The same command starts them all again, from the last checkpoint.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from alignlab import distributed
from alignlab.errors import AlignlabError, Pruned
from alignlab.launched import Place
from alignlab.pipeline.links import Meeting
from alignlab.pipeline.members import Members, RankLost
from alignlab.pipeline.shared_job import Job
from alignlab.runtime import Runtime

T = TypeVar("T")

GRACE: Final = 20.0
"""Seconds in which the first process has to notice by itself that another one was lost, before it is ended."""


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
    threads: int = 0
    """Of PyTorch, for each process; 0 keeps its default."""
    code: int = 1
    """Exit code of all processes, once it is known."""
    on_stuck: Callable[[RankLost], None] | None = None
    """Called before this process is ended because it waits for one that was lost."""
    is_spent: bool = field(default=False, init=False)
    """Whether work has failed: the processes may be at different points of it, and cannot go on together."""

    def __post_init__(self) -> None:
        self._meeting = Meeting(self.place)
        self._members = Members(self.place, self.processes, self._notice)
        self._is_closed = self._has_group = False
        self._meeting.set("leader", self._members.address)

    @property
    def port(self) -> int:
        """At which the processes meet."""
        return self._meeting.port

    # ---- computing ------------------------------------------------------------------------------------------------
    def run(self, job: Job, own: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Have every process compute a stage; what this one's part returns.

        Raises:
            RankLost: another process died or failed.
            Pruned: all of them have ended the stage.
        """
        with self._at_work():
            self._members.send(dict.fromkeys(range(1, self.place.world), ("run", job)))
            self._join_group(job.runtime)
            metrics, pruned = dict[str, float](), None
            with distributed.together():
                try:
                    metrics = dict(own())
                except Pruned as error:  # so have the others, and they go on
                    pruned = error
            self._members.answers()
        if pruned is not None:
            raise pruned
        return metrics

    def call(self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], own: Callable[[], T]) -> list[T]:
        """See `alignlab.distributed.Helpers`."""
        with self._at_work():
            messages = [("call", function, given, self.threads) for given in arguments]
            self._members.send(dict(enumerate(messages, start=1)))
            mine = own()
            return [mine, *self._members.answers()]

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Context of work that all processes share, once they have joined; one that was lost explains an error here."""
        try:
            self._members.gather(self.timeout)
            yield
        except BaseException as error:
            self.is_spent = True
            lost = (
                None
                if isinstance(error, AlignlabError) or not isinstance(error, Exception)
                else self._members.lost_soon()
            )
            self._members.hold()
            if lost is not None:
                raise lost from error
            raise

    def _join_group(self, runtime: Runtime) -> None:
        if not self._has_group:
            distributed.join(self._meeting.of_group(), self.place.rank, self.place.world, runtime.device)
            self._has_group = True

    # ---- ending ---------------------------------------------------------------------------------------------------
    def _notice(self, error: RankLost) -> None:
        if self._has_group:
            threading.Thread(target=self._end_if_stuck, args=(error,), daemon=True).start()

    def _end_if_stuck(self, error: RankLost) -> None:
        """End this process where it still waits for one that is gone (NCCL does not notice by itself)."""
        time.sleep(GRACE)
        if self._is_closed or self.is_spent:
            return
        if self.on_stuck is not None:
            self.on_stuck(error)
        self._members.end(1)
        os._exit(1)

    def close(self, code: int) -> None:
        """End the other processes, with the exit code that this one will have."""
        if self._is_closed:
            return
        self._is_closed = True
        self._members.end(code)
        if self._has_group:
            distributed.leave()
        self._members.close()
