"""The processes of a run as they are started: by a launcher, or by the first one itself."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from alignlab import distributed
from alignlab.artifact import Artifact
from alignlab.errors import ConfigError
from alignlab.launched import STARTED_BY, Place
from alignlab.pipeline.links import LOCAL
from alignlab.pipeline.members import RankLost
from alignlab.pipeline.plan import Step
from alignlab.pipeline.ranks import Leader
from alignlab.pipeline.shared_job import Job
from alignlab.runtime import Runtime
from alignlab.stage import Stage, StageContext

T = TypeVar("T")

_leading: list[Leader] = []
"""The leader of processes that a launcher has started."""


@contextlib.contextmanager
def led(place: Place) -> Iterator[Leader]:
    """Lead the processes that a launcher has started, until the command ends; they end with its `code`."""
    if _leading:
        yield _leading[0]
        return
    leader = Leader(place)
    _leading.append(leader)
    try:
        yield leader
    finally:
        _leading.clear()
        leader.close(leader.code)


def start(processes: int) -> Leader:
    """Start further processes on this machine, which follow this one."""
    first = Place(0, processes, 0, processes, LOCAL, 0)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC_", "SLURM_"))}
    path = os.pathsep.join(dict.fromkeys([p or os.getcwd() for p in sys.path]))
    started: dict[int, subprocess.Popen[bytes]] = {}
    leader = Leader(first, started)
    for rank in range(1, processes):
        place = Place(rank, processes, rank, processes, first.address, leader.port)
        # In a session of its own, so that Ctrl-C reaches the first process alone, which then tells the others.
        started[rank] = subprocess.Popen(
            [sys.executable, "-m", "alignlab"],
            env={**kept, **place.variables(), STARTED_BY: str(os.getpid()), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return leader


def placed(runtime: Runtime) -> Runtime:
    """The runtime, with the number of processes that a launcher has started.

    Raises:
        ConfigError: it started several, and the runtime is of one.
        RankLost: they have failed in an earlier job of a sweep.
    """
    if not _leading:
        if runtime.num_nodes > 1:
            raise ConfigError(
                f"runtime.num_nodes is {runtime.num_nodes}, and this command was started on one machine alone: start "
                f"it on each by torchrun or srun, which say how many there are"
            )
        return runtime
    if _leading[0].is_spent:
        raise RankLost(
            "not run: the processes that the launcher has started cannot continue after a job that failed. Start the "
            "command again, with sweep.resume=true for what is missing alone"
        )
    place = _leading[0].place
    if runtime.strategy == "auto":
        raise ConfigError(
            f"the command was started as {place.world} processes, and runtime.strategy=auto computes with one: add "
            f"runtime=ddp or runtime=fsdp2, or start it once"
        )
    return dataclasses.replace(runtime, devices=place.local_world, num_nodes=place.nodes)


@dataclass
class Team:
    """The processes that compute the stages of one run.

    Args:
        runtime: where to compute; see `placed`.
        store: root of the store.
        on_stuck: see `Leader`.
    """

    runtime: Runtime
    store: Path
    on_stuck: Callable[[RankLost], None]
    _leader: Leader | None = field(default=None, init=False)

    def computed(
        self, step: Step, stage: Stage, inputs: Mapping[str, Artifact], context: StageContext
    ) -> Mapping[str, float]:
        """Run a stage, by all processes where there are several and it is made for that."""
        if self.runtime.is_shared and stage.TOGETHER:
            same = step.fingerprint, step.input_fingerprints, step.code
            job = Job(step.name, step.spec, inputs, context.work, self.store, self.runtime, *same)
            return self._lead().run(job, lambda: stage.run(inputs, context))
        if self.runtime.processes > 1 and stage.IS_HELPED:
            with distributed.helped_by(Helpers(self.runtime.processes - 1, self._lead)):
                return stage.run(inputs, context)
        return stage.run(inputs, context)

    def close(self) -> None:
        """End the processes that this run has started; a launcher's continue with the next one."""
        if self._leader is not None and not _leading:
            self._leader.close(1)

    def _lead(self) -> Leader:
        """The leader of all processes, started at first use where no launcher has."""
        if self._leader is None:
            self._leader = _leading[0] if _leading else start(self.runtime.devices)
            self._leader.timeout, self._leader.threads = self.runtime.timeout, self.runtime.threads
            self._leader.on_stuck = self.on_stuck
        return self._leader


class Helpers(distributed.Helpers):
    """The other processes, which begin when they are first called.

    Args:
        count: how many there are.
        leader: gives the process that they follow.
    """

    def __init__(self, count: int, leader: Callable[[], Leader]) -> None:
        self._count, self._leader = count, leader

    @property
    def count(self) -> int:
        return self._count

    def call(self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], own: Callable[[], T]) -> list[T]:
        return self._leader().call(function, arguments, own)
