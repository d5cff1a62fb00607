"""Parts of one machine that jobs at the same time get: threads and GPUs."""

import os
from collections.abc import Mapping

from alignlab.errors import ConfigError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
GPUS = "CUDA_VISIBLE_DEVICES"


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def part(slot: int, slots: int, gpus: int, known: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of the jobs in one of several places.

    Args:
        slot: from 0.
        slots: jobs at the same time.
        gpus: of each job; with 0, all jobs see all of them.
        known: the environment of the whole sweep, which is respected.

    Raises:
        ConfigError: there are fewer GPUs than the jobs need together.
    """
    found = {name: str(max(1, cpus() // slots)) for name in THREADS if name not in known}
    if gpus:
        own = range(slot * gpus, (slot + 1) * gpus)
        visible = [name for name in known.get(GPUS, "").split(",") if name]
        if visible and len(visible) < slots * gpus:
            raise ConfigError(
                f"hydra.launcher: {slots} jobs at the same time with {gpus} GPU(s) each need {slots * gpus}, but "
                f"{GPUS} names {len(visible)}; run fewer at the same time"
            )
        found[GPUS] = ",".join(visible[i] if visible else str(i) for i in own)
    return found
