"""An objective under test, and random input for it: made from the batch it takes, its `needs` and its `reads`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alignlab.batch import Batch, TokenBatch
from alignlab.objective import Objective
from alignlab.testing.batches import make_batch
from alignlab.testing.objective.cases import ATTRIBUTES, PER_SEQUENCE, Case

Extra: TypeAlias = Callable[[Batch, torch.Generator], Tensor]
"""Makes a further tensor of a batch: `(T, ...)`, `(S, ...)` or `(W, ...)`."""

_NEAR: Mapping[str, str] = {
    "reference_logp": "logp",
    "old_logp": "logp",
    "sampler_logp": "logp",
    "old_value": "value",
    "returns": "value",
    "advantage": "",
}
"""Known per-token extras and the statistic that each is close to, so that clipping happens at some tokens only."""
_PER_SEQUENCE: Mapping[str, Extra] = {
    "reward": lambda batch, g: torch.randn(batch.num_sequences, generator=g),
    "finished": lambda batch, g: (torch.randn(batch.num_sequences, generator=g) > 0).float(),
    "group": lambda batch, g: torch.arange(batch.num_sequences) // 2,
}
_PER_UNIT: Mapping[str, Extra] = {
    "desirable": lambda batch, g: (torch.arange(batch.num_units) % 3 > 0).float(),
    "margin": lambda batch, g: torch.rand(batch.num_units, generator=g),
    "agreement": lambda batch, g: 0.5 + 0.5 * torch.rand(batch.num_units, generator=g),
    "probability": lambda batch, g: 0.5 + 0.5 * torch.rand(batch.num_units, generator=g),
    "tie": lambda batch, g: (torch.arange(batch.num_units) % 3 == 0).float(),
    "ratings": lambda batch, g: torch.randn(batch.num_units, len(ATTRIBUTES), generator=g),
}
FLAGS = frozenset({"mismatched"})
"""Names in `reads` that ask for sequences, not for a tensor."""


@dataclass(frozen=True)
class ObjectiveSubject:
    """An objective under test.

    Args:
        make: builds the objective.
        batch: makes a batch of so many units; by default one of the type that the objective is generic over.
        extras: makes what `reads` names and the kit does not know.
    """

    make: Callable[[], Objective[Any]]
    batch: Callable[[int], Batch] | None = None
    extras: Mapping[str, Extra] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The objective's class."""
        return type(self.make()).__name__

    def case(self, units: int = 8, seed: int = 0) -> Case:
        """Random input of so many units, in float64."""
        objective = self.make()
        generator = torch.Generator().manual_seed(seed)
        batch = self._batch(objective, units, generator)
        stats = {name: _statistic(name, batch, generator) for name in sorted(objective.needs)}
        for name in sorted(objective.reads - FLAGS):
            batch = self._with_extra(batch, name, stats, generator)
        return Case.of(batch, stats).to(torch.float64)

    def _batch(self, objective: Objective[Any], units: int, generator: torch.Generator) -> Batch:
        if self.batch is not None:
            return self.batch(units)
        return make_batch(batch_type(objective), units, generator, "mismatched" in objective.reads)

    def _with_extra(self, batch: Batch, name: str, stats: Mapping[str, Tensor], generator: torch.Generator) -> Batch:
        if name in {*batch.per_token, *batch.per_sequence, *batch.per_unit}:
            return batch
        if name in self.extras:
            return self._with_own(batch, name, self.extras[name](batch, generator))
        if name in _NEAR:
            noise = torch.randn(batch.num_tokens, generator=generator)
            near = stats.get(_NEAR[name])
            return batch.with_tokens(**{name: noise if near is None else near + 0.3 * noise})
        if name in _PER_SEQUENCE:
            return batch.with_sequences(**{name: _PER_SEQUENCE[name](batch, generator)})
        if name in _PER_UNIT:
            return batch.with_units(**{name: _PER_UNIT[name](batch, generator)})
        raise ValueError(
            f"{self.name} reads {name!r}, which the kit does not know; pass extras={{{name!r}: lambda batch, "
            f"generator: tensor}} to conforms_objective"
        )

    def _with_own(self, batch: Batch, name: str, made: Tensor) -> Batch:
        """The batch with an extra of the caller's, along every axis of its length: a sequence may also be a unit."""
        sizes = {"token": batch.num_tokens, "sequence": batch.num_sequences, "unit": batch.num_units}
        fits = {axis for axis, size in sizes.items() if made.shape[0] == size}
        if not fits:
            raise ValueError(
                f"{self.name}: extras[{name!r}] gave shape {tuple(made.shape)}; its first axis must be the "
                f"{batch.num_tokens} tokens, {batch.num_sequences} sequences or {batch.num_units} units"
            )
        batch = batch.with_tokens(**{name: made}) if "token" in fits else batch
        batch = batch.with_sequences(**{name: made}) if "sequence" in fits else batch
        return batch.with_units(**{name: made}) if "unit" in fits else batch


def _statistic(name: str, batch: Batch, generator: torch.Generator) -> Tensor:
    size = batch.num_sequences if name in PER_SEQUENCE else batch.num_tokens
    noise = torch.randn((size, len(ATTRIBUTES)) if name == "scores" else size, generator=generator)
    if name in ("score", "scores", "value"):
        return noise
    # Log-probabilities are negative; entropies, log-sum-exps and divergences are positive here.
    return -noise.abs() - 0.1 if name == "logp" else noise.abs() + 0.1


def batch_type(objective: Objective[Any]) -> type[Batch]:
    """The batch that an objective takes; a `TokenBatch` where any will do.

    Raises:
        TypeError: its class does not say.
    """
    found = objective.takes
    if found is None:
        raise TypeError(
            f"{type(objective).__name__}: does not state its batch; write class {type(objective).__name__}"
            f"(Objective[TokenBatch]), or pass batch="
        )
    return TokenBatch if found is Batch else found
