"""All-reduce helpers; no-ops in a single process."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from alignlab.stats import Mean

T = TypeVar("T")

_apart: list[bool] = [False]
"""Whether this process computes for itself at the moment, although it has joined others."""


def _joined() -> bool:
    return not _apart[-1] and dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes that compute together."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _joined() else 0


def join(store: Any, number: int, world: int, device: torch.device) -> None:
    """Join other processes; until `leave`, this one computes with them within `together`, and otherwise for itself.

    Args:
        store: torch's, by which they find each other.
        number: of this process, from 0.
        world: how many there are.
        device: of this process.
    """
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.set_device(device)
    # Those that were lost are found by other means; one may have to wait for another that reads data for hours.
    limit, own = timedelta(days=1), device if is_gpu else None
    backend = "nccl" if is_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=limit, device_id=own)
    _apart[:] = [True]


def leave() -> None:
    """Leave the others, if any were joined."""
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # the others are gone already
            dist.destroy_process_group()
    _apart[:] = [False]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Context in which all processes compute the same, each its share."""
    _apart.append(False)
    try:
        yield
    finally:
        _apart.pop()


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


def from_first(value: T) -> T:
    """The first process's value, on every process; plain Python objects."""
    if world_size() == 1:
        return value
    held: list[object] = [value]
    dist.broadcast_object_list(held, src=0)
    return cast(T, held[0])


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
