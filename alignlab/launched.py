"""The place of this process among those that a launcher started: torchrun, srun (SLURM), or alignlab itself.

A launcher starts the same command once per process and numbers them in environment variables. Process 0 runs the
command; the others help it (`alignlab.pipeline.ranks`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alignlab.errors import ConfigError

PORT: Final = 29500
"""Port at which processes meet where the launcher names none; torchrun's own default."""

STARTED_BY: Final = "ALIGNLAB_STARTED_BY"
"""Environment variable of a process that alignlab itself has started: the id of the first one."""


@dataclass(frozen=True)
class Place:
    """One of several processes that were started together.

    Args:
        rank: its number, from 0.
        world: how many there are.
        local_rank: its number on its machine, from 0.
        local_world: how many there are on each machine.
        address: of the machine of process 0.
        port: at which they meet there.
        is_served: whether the launcher serves that port (torchrun); otherwise process 0 does.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str
    port: int
    is_served: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.world % self.local_world:
            raise ConfigError(
                f"the launcher says that this is process {self.rank} of {self.world}, {self.local_world} on each "
                f"machine; every machine needs as many as the others"
            )

    @property
    def nodes(self) -> int:
        """Machines."""
        return self.world // self.local_world

    def variables(self) -> dict[str, str]:
        """The environment variables that say so, as torchrun sets them."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def place(given: Mapping[str, str] | None = None) -> Place | None:
    """This process's place, by the environment; None where it was started alone.

    Raises:
        ConfigError: the variables contradict each other.
    """
    given = os.environ if given is None else given
    if _number(given, "WORLD_SIZE", 1) > 1:
        return _of_torchrun(given)
    if _number(given, "SUBMITIT_LOCAL_NTASKS", 1) > 1:
        return _of_submitit(given)
    return _of_slurm(given) if "SLURM_PROCID" in given else None


def local_rank() -> int:
    """This process's number on its machine, which is that of its device; 0 where it was started alone."""
    own = place()
    return 0 if own is None else own.local_rank


def _of_torchrun(given: Mapping[str, str]) -> Place:
    world = _number(given, "WORLD_SIZE", 1)
    if "RANK" not in given:
        raise ConfigError(
            f"WORLD_SIZE is {world}, but RANK is not set: start every process by torchrun or srun, or unset WORLD_SIZE "
            f"and let runtime=ddp start them"
        )
    address, port = given.get("MASTER_ADDR", "127.0.0.1"), _number(given, "MASTER_PORT", PORT)
    local = _number(given, "LOCAL_RANK", 0), _number(given, "LOCAL_WORLD_SIZE", 1)
    is_served = given.get("TORCHELASTIC_USE_AGENT_STORE", "").lower() == "true"
    return Place(_number(given, "RANK", 0), world, *local, address, port, is_served)


def _of_submitit(given: Mapping[str, str]) -> Place:
    """One task of submitit's local executor, all of them on this machine."""
    world = _number(given, "SUBMITIT_LOCAL_NTASKS", 1)
    mine = _number(given, "SUBMITIT_LOCAL_GLOBALID", 0), world, _number(given, "SUBMITIT_LOCAL_LOCALID", 0), world
    return Place(*mine, "127.0.0.1", _port_of(_number(given, "SUBMITIT_LOCAL_JOB_ID", 0)))


def _port_of(job: int) -> int:
    """A port for each job, so that two on one machine do not meet."""
    return 20_000 + job % 10_000


def _of_slurm(given: Mapping[str, str]) -> Place | None:
    """One task of `srun`; None for a job of one task, and for a shell within a job."""
    world = _number(given, "SLURM_STEP_NUM_TASKS", _number(given, "SLURM_NTASKS", 1))
    if world == 1 or given.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    nodes = _number(given, "SLURM_STEP_NUM_NODES", _number(given, "SLURM_NNODES", 1))
    listed = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    return Place(
        _number(given, "SLURM_PROCID", 0),
        world,
        _number(given, "SLURM_LOCALID", 0),
        max(1, world // nodes),
        given.get("MASTER_ADDR") or first_host(listed),
        _number(given, "MASTER_PORT", _port_of(_number(given, "SLURM_JOB_ID", 0))),
    )


def first_host(listed: str) -> str:
    """The first of SLURM's list of hosts: `gpu[03-05,9],cpu1` is `gpu03` and others."""
    found = re.match(r"([^,\[]*)(?:\[([^\],\-]*)[^\]]*\])?([^,\[]*)", listed)
    return "".join(part or "" for part in found.groups()) if found else listed


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name) or str(default)
    if not text.isdigit():
        raise ConfigError(f"{name} must be a whole number, got {text!r}; the launcher sets it")
    return int(text)
