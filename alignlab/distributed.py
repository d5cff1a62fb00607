"""All-reduce helpers; no-ops in a single process."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist

from alignlab.stats import Mean


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_of(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each scalar summed over all processes, in one exchange; every process must name the same ones."""
    if world_size() == 1 or not values:
        return dict(values)
    names = sorted(values)
    joined = torch.stack([values[n].detach().double() for n in names])
    dist.all_reduce(joined)
    return {n: joined[i].to(values[n].dtype) for i, n in enumerate(names)}


def sum_of_means(means: Mapping[str, Mean]) -> dict[str, Mean]:
    """Each mean over the units of all processes."""
    totals = sum_of({k: m.total for k, m in means.items()})
    weights = sum_of({k: m.weight for k, m in means.items()})
    return {k: Mean(totals[k], weights[k]) for k in means}


def max_of(value: int, device: torch.device) -> int:
    """The largest of all processes' values."""
    if world_size() == 1:
        return value
    joined = torch.tensor([value], device=device)
    dist.all_reduce(joined, op=dist.ReduceOp.MAX)
    return int(joined)


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 has made a part of a module a shard of its own, to be gathered whenever it runs."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # where it was not imported, it has sharded nothing
    return fsdp is not None and any(isinstance(part, fsdp.FSDPModule) for part in module.modules())


@contextlib.contextmanager
def part_of_a_step(wrapped: nn.Module, policies: Iterable[nn.Module], last: bool) -> Iterator[None]:
    """Context of a micro-batch's forward and backward, in which processes exchange data once per step where possible.

    DDP averages gradients in the last micro-batch only. What FSDP2 shards of a policy as a whole (its head and its
    embeddings; layers are shards of their own) is gathered in the first one and kept until the last.

    Args:
        wrapped: the module as the strategy wraps it.
        policies: modules that FSDP2 may have sharded.
        last: whether this is the step's last micro-batch.
    """
    # Late: importing FSDP takes half a second, which a plan would wait for.
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    for policy in policies:
        if isinstance(policy, FSDPModule):
            policy.set_reshard_after_backward(last, recurse=False)
    with contextlib.ExitStack() as stack:
        if isinstance(wrapped, DistributedDataParallel) and not last:
            stack.enter_context(wrapped.no_sync())
        yield


def gather_objects(value: list[object]) -> list[object]:
    """The lists of all processes joined, in the order of their ranks, on every process."""
    if world_size() == 1:
        return value
    parts: list[list[object] | None] = [None] * world_size()
    dist.all_gather_object(parts, value)
    return [item for part in parts if part is not None for item in part]
