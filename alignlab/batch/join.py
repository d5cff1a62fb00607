"""Joining batches."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from alignlab.batch.base import Batch

B = TypeVar("B", bound=Batch)

_PLAIN = ("tokens", "position", "response_mask", "weight")
_EXTRAS = ("per_token", "per_sequence", "per_unit")


def concatenate(parts: Sequence[B]) -> B:
    """Join batches of one kind, one temperature and the same extras; numbers of sequences, units and groups continue.

    Raises:
        ValueError: they differ in kind, temperature or extras.
    """
    first = parts[0]
    for part in parts:
        _check_alike(first, part)
    sequences = [0, *itertools.accumulate(p.num_sequences for p in parts)]
    units = [0, *itertools.accumulate(p.num_units for p in parts)]
    joined: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in _PLAIN}
    for kind in _EXTRAS:
        joined[kind] = {k: torch.cat([getattr(p, kind)[k] for p in parts]) for k in getattr(first, kind)}
    if "group" in first.per_sequence:
        joined["per_sequence"]["group"] = _continued([p.sequence("group") for p in parts])
    joined["sequence_id"] = torch.cat([p.sequence_id + n for p, n in zip(parts, sequences, strict=False)])
    joined["unit"] = torch.cat([p.unit + n for p, n in zip(parts, units, strict=False)])
    return replace(first, **joined, names=tuple(n for p in parts for n in p.names))


def _check_alike(first: Batch, other: Batch) -> None:
    if type(first) is not type(other) or first.temperature != other.temperature:
        kinds = [f"{type(b).__name__} at temperature {b.temperature}" for b in (first, other)]
        raise ValueError(f"concatenate: batches must be of one kind and temperature, got {kinds[0]} and {kinds[1]}")
    for kind in _EXTRAS:
        names = sorted(getattr(first, kind)), sorted(getattr(other, kind))
        if names[0] != names[1]:
            raise ValueError(f"concatenate: batches must have the same {kind} extras, got {names[0]} and {names[1]}")


def _continued(groups: Sequence[Int[Tensor, "_"]]) -> Int[Tensor, "_"]:
    """Group numbers of several batches joined, so that no two batches share one."""
    offsets = [0, *itertools.accumulate(int(g.max()) + 1 if g.numel() else 0 for g in groups)]
    return torch.cat([g + n for g, n in zip(groups, offsets, strict=False)])
