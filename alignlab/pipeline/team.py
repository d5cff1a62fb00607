"""The processes of a run as they are started: by a launcher, or by the first one itself."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from alignlab import distributed
from alignlab.errors import ConfigError
from alignlab.launched import Place
from alignlab.pipeline.ranks import Leader
from alignlab.stage import Runtime

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


def leader_of(runtime: Runtime) -> Leader:
    """The leader of the processes that a launcher has started; else of new ones, which the caller closes."""
    return _leading[0] if _leading else start(runtime.devices)


def is_launched() -> bool:
    """Whether a launcher has started the processes of this run."""
    return bool(_leading)


def start(processes: int) -> Leader:
    """Start further processes on this machine, which follow this one."""
    first = Place(0, processes, 0, processes, "127.0.0.1", 0)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC_", "SLURM_"))}
    path = os.pathsep.join(dict.fromkeys([p or os.getcwd() for p in sys.path]))
    started: dict[int, subprocess.Popen[bytes]] = {}
    leader = Leader(first, started)
    for rank in range(1, processes):
        place = Place(rank, processes, rank, processes, first.address, leader.port)
        # In a session of its own, so that Ctrl-C reaches the first process alone, which then tells the others.
        started[rank] = subprocess.Popen(
            [sys.executable, "-m", "alignlab"],
            env={**kept, **place.variables(), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return leader


def placed(runtime: Runtime) -> Runtime:
    """The runtime, with the number of processes that a launcher has started.

    Raises:
        ConfigError: it started several, and the runtime is of one.
    """
    if not _leading:
        if runtime.num_nodes > 1:
            raise ConfigError(
                f"runtime.num_nodes is {runtime.num_nodes}, and this command was started on one machine alone: start "
                f"it on each by torchrun or srun, which say how many there are"
            )
        return runtime
    place = _leading[0].place
    if runtime.strategy == "auto":
        raise ConfigError(
            f"the command was started as {place.world} processes, and runtime.strategy=auto computes with one: add "
            f"runtime=ddp or runtime=fsdp2, or start it once"
        )
    return dataclasses.replace(runtime, devices=place.local_world, num_nodes=place.nodes)


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
