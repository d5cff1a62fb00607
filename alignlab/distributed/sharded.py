"""FSDP2: modules whose weights, gradients and moments are split among the processes, and the whole of them again.

A module is split once (`shard`): each of its blocks is a part that is gathered when it runs, and what is left (the
embeddings, the head) is one more. `whole` gathers all parts, for work in which processes call the model unequally
often: sampling, scoring a buffer, writing files.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_gathered: set[int] = set()
"""Ids of the parts that are gathered at the moment."""


def shard(module: nn.Module, blocks: Iterable[nn.Module], mesh: "DeviceMesh") -> None:
    """Split a module among the processes of a mesh.

    Args:
        module: the same on every process's device; the first one's weights are taken.
        blocks: parts of it that are gathered one after the other.
        mesh: of one dimension.
    """
    from torch.distributed.fsdp import fully_shard

    with torch.no_grad():  # FSDP2 does not do it
        for held in [*module.parameters(), *module.buffers()]:
            dist.broadcast(held.data, src=0)
    for block in blocks:
        fully_shard(block, mesh=mesh)
    made: Any = fully_shard(module, mesh=mesh)
    # Else the first part that happens to run would take itself for the whole: sampling calls the model's own layers.
    made._get_fsdp_state()._lazy_init()


def _parts(module: nn.Module) -> list[Any]:
    fsdp = sys.modules.get("torch.distributed.fsdp")  # where it was not imported, it has split nothing
    return [] if fsdp is None else [part for part in module.modules() if isinstance(part, fsdp.FSDPModule)]


def is_sharded(module: nn.Module) -> bool:
    """Whether a part of a module is to be gathered whenever it runs."""
    return any(id(part) not in _gathered for part in _parts(module))


@contextlib.contextmanager
def whole(*modules: nn.Module) -> Iterator[None]:
    """Context in which modules have all of their weights, and run without waiting for other processes.

    Every process enters it, and enough memory for the whole model is taken on each.

    Args:
        modules: each as it was given to `shard`; others are left alone.
    """
    parts = [(part, part is module) for module in modules for part in _parts(module) if id(part) not in _gathered]
    for part, _ in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    _gathered.update(id(part) for part, _ in parts)
    try:
        yield
    finally:
        _gathered.difference_update(id(part) for part, _ in parts)
        for part, is_root in parts:
            part.reshard()
            part.set_reshard_after_forward(not is_root, recurse=False)


@contextlib.contextmanager
def written_whole(*modules: nn.Module) -> Iterator[None]:
    """Context in which modules hold all of every weight as plain tensors, to be written; they cannot run in it.

    Every process enters it. `whole` is not enough: FSDP2 splits weights again as soon as a state is asked for.
    """
    split = [
        (part, name, weight)
        for module in modules
        for part in module.modules()
        for name, weight in part._parameters.items()
        if weight is not None and hasattr(weight, "full_tensor")
    ]
    found = {id(w): nn.Parameter(full(w.detach()), w.requires_grad) for _, _, w in split}  # tied ones once
    for part, name, weight in split:
        part._parameters[name] = found[id(weight)]
    try:
        yield
    finally:
        for part, name, weight in split:
            part._parameters[name] = weight


def full(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split; every process asks for it at once."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def placed_as(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, split as another one is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or tensor.shape != like.shape:
        return tensor  # the number of steps of an optimizer is not split
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def full_state(state: Any) -> Any:
    """A state, of tensors in mappings and lists, with all of every tensor; every process asks for it at once."""
    if isinstance(state, Tensor):
        return full(state)
    if isinstance(state, Mapping):
        return {key: full_state(value) for key, value in state.items()}
    return [full_state(value) for value in state] if isinstance(state, list | tuple) else state


@torch.no_grad()
def fill(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into those of the same names, which may be split."""
    for name, tensor in state.items():
        own[name].copy_(placed_as(tensor, own[name]))
