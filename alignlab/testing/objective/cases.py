"""A batch with the statistics of a policy inside: what an objective is checked on.

The statistics are reserved extras of the batch. They are cut, ordered and shared out with it, and gradients reach them
through every cut, so that the code that trains can run on a case as it is.

Axes: T tokens, S sequences, W units.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from alignlab.batch import Batch
from alignlab.stats import TokenStats

RESERVED = "stats."
"""Prefix of the extras that hold statistics."""
PER_SEQUENCE = frozenset({"score", "scores"})
"""Statistics that are `(S,)`, or `(S, k)`; all others are `(T,)`."""
ATTRIBUTES = ("first", "second")
"""The attributes of a model that gives `scores`."""

Axis: TypeAlias = Literal["token", "sequence", "unit"]
Change: TypeAlias = Callable[[str, Tensor, Axis], Tensor]
"""Gives another tensor for a floating-point one, from its name, its value and its first axis."""
_AXES: Mapping[Axis, str] = {"token": "per_token", "sequence": "per_sequence", "unit": "per_unit"}


@dataclass(frozen=True)
class Case:
    """A batch with statistics; those are leaves of autograd.

    Args:
        batch: with the extras that the objective declares, no others, and the statistics.
    """

    batch: Any

    @classmethod
    def of(cls, batch: Batch, stats: Mapping[str, Tensor]) -> Self:
        """The case of a batch and statistics by name, `(T, ...)` or `(S, ...)` each."""
        leaves = {RESERVED + k: v.detach().clone().requires_grad_() for k, v in stats.items()}
        sequences = {k: v for k, v in leaves.items() if k.removeprefix(RESERVED) in PER_SEQUENCE}
        tokens = {k: v for k, v in leaves.items() if k not in sequences}
        return cls(batch.with_tokens(**tokens).with_sequences(**sequences))

    @property
    def stats(self) -> dict[str, Tensor]:
        """The statistics by name."""
        return dict(stats_of(self.batch).values)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that an objective is given, by name."""
        own = ("tokens", "sequence_id", "position", "response_mask", "unit", "weight")
        extras = {k: v.detach() for kind in _AXES.values() for k, v in getattr(self.batch, kind).items()}
        return {**{n: getattr(self.batch, n) for n in own}, **extras}

    def is_number(self, name: str) -> bool:
        """Whether a statistic or extra of that name holds floating-point numbers."""
        found = {k.removeprefix(RESERVED): v.is_floating_point() for k, v in self.tensors().items()}
        return found.get(name, False)

    def select(self, units: Sequence[int]) -> Self:
        """The case of some units; gradients still reach the leaves of this case."""
        return replace(self, batch=self.batch.select_units(list(units)))

    def map(self, change: Change) -> Self:
        """The same case with every floating-point tensor changed, and statistics that are leaves of autograd."""
        extras = {kind: self._mapped(axis, change) for axis, kind in _AXES.items()}
        weight = change("weight", self.batch.weight, "unit")
        return replace(self, batch=replace(self.batch, weight=weight, **extras))

    def _mapped(self, axis: Axis, change: Change) -> dict[str, Tensor]:
        found = {}
        for name, value in getattr(self.batch, _AXES[axis]).items():
            x = value.detach()
            x = change(name.removeprefix(RESERVED), x, axis).clone() if x.is_floating_point() else x
            found[name] = x.requires_grad_(name.startswith(RESERVED))
        return found

    def with_values(self, **values: Tensor) -> Self:
        """The same case with other values of the named statistics and extras; names that it lacks are left out."""
        return self.map(lambda name, x, axis: values[name].to(x.dtype) if name in values else x)

    def with_mask(self, response_mask: Tensor) -> Self:
        """The same case with another response mask."""
        return replace(self, batch=replace(self.batch, response_mask=response_mask))

    def with_weight(self, weight: Tensor) -> Self:
        """The same case with another weight of each unit."""
        return replace(self, batch=replace(self.batch, weight=weight))

    def to(self, dtype: torch.dtype) -> Self:
        """The same case with every floating-point tensor of another type."""
        return self.map(lambda name, x, axis: x.to(dtype))

    def fresh(self) -> Self:
        """The same case with leaves that have no gradient yet."""
        return self.map(lambda name, x, axis: x)

    def with_leaves(self) -> Self:
        """The same case with its per-token extras as leaves of autograd too."""
        numbers = {k: v for k, v in self.batch.per_token.items() if v.is_floating_point()}
        leaves = {k: v.detach().clone().requires_grad_() for k, v in numbers.items()}
        return replace(self, batch=self.batch.with_tokens(**leaves))

    def leaves(self) -> dict[str, Tensor]:
        """The leaves of autograd by name."""
        extras = {**self.batch.per_token, **self.batch.per_sequence}
        return {k.removeprefix(RESERVED): v for k, v in extras.items() if v.requires_grad}

    def plain_batch(self) -> Any:
        """The batch without the statistics."""
        kept = {
            kind: {k: v for k, v in getattr(self.batch, kind).items() if not k.startswith(RESERVED)}
            for kind in _AXES.values()
        }
        return replace(self.batch, **kept)

    def along(self, of_sequence: Tensor) -> Tensor:
        """`(T,)` the entry of each token's sequence in an `(S,)` tensor."""
        found: Tensor = of_sequence[self.batch.sequence_id]
        return found


def stats_of(batch: Any) -> TokenStats:
    """The statistics inside a batch, in place of a policy's."""
    extras = {**batch.per_token, **batch.per_sequence}
    return TokenStats({k.removeprefix(RESERVED): v for k, v in extras.items() if k.startswith(RESERVED)})
