"""Batches and token statistics for checking an objective, made from what it declares.

Everything is float64 and drawn from a seed. Lengths are unequal, weights differ, one sequence has a hole in its
response mask: whatever an objective may wrongly take for granted is not so here.

Axes: T tokens, S sequences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch
from alignlab.objective import Objective
from alignlab.objective import batch_type as stated_batch_type
from alignlab.stats import TokenStats

Extra: TypeAlias = Callable[[Batch, torch.Generator], Tensor]
"""Makes a further tensor of a batch, `(T, ...)` or `(S, ...)`."""

VOCABULARY = 24
_PROMPTS = (2, 3, 1, 4)
_ANSWERS = (3, 6, 2, 8, 1, 5, 4, 7, 3, 2)
_WEIGHTS = (1.0, 0.5, 2.0, 1.0, 1.5, 1.0, 0.25, 3.0)
_NOW = "now: "
PER_SEQUENCE = frozenset({"score"})
"""Statistics that are `(S,)`; all others are `(T,)`."""


@dataclass(frozen=True)
class Case:
    """A batch, and what a policy would say about it (leaves of autograd).

    Args:
        batch: with the extras that the objective declares, and no others.
        now: `(T,)` or `(S,)` statistics by name.
    """

    batch: Any
    now: Mapping[str, Tensor]

    def stats(self) -> TokenStats:
        """What the objective is called with."""
        return TokenStats(self.now)

    def select(self, atoms: Sequence[int]) -> Self:
        """The case of some atoms; gradients still reach this case's leaves."""
        tokens = {_NOW + k: v for k, v in self.now.items() if k not in PER_SEQUENCE}
        sequences = {_NOW + k: v for k, v in self.now.items() if k in PER_SEQUENCE}
        part = self.batch.with_tokens(**tokens).with_sequences(**sequences).select_atoms(list(atoms))
        extras = {**part.per_token, **part.per_sequence}
        now = {k.removeprefix(_NOW): v for k, v in extras.items() if k.startswith(_NOW)}
        return replace(self, batch=_without_now(part), now=now)

    def split(self, size: int) -> list[Self]:
        """Parts of `size` atoms each, the last one perhaps smaller."""
        atoms = range(self.batch.num_atoms)
        return [self.select(atoms[i : i + size]) for i in range(0, len(atoms), size)]

    def ranks(self, world_size: int) -> list[Self]:
        """What `world_size` processes run, one atom a micro-batch; those that run out of atoms run empty ones."""
        shares = [range(rank, self.batch.num_atoms, world_size) for rank in range(world_size)]
        most = max(len(share) for share in shares)
        return [self.select(share[i : i + 1]) for share in shares for i in range(most)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same case with every floating-point tensor changed, as leaves of autograd."""
        now = {k: change(v.detach()).clone().requires_grad_() for k, v in self.now.items()}
        return replace(self, batch=with_floats(self.batch, change), now=now)

    def fresh(self) -> Self:
        """The same case with leaves that have no gradient yet."""
        return self.map(lambda x: x)


def with_floats(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with its weight and every floating-point extra changed."""

    def changed(extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: change(v) if v.is_floating_point() else v for k, v in extras.items()}

    return replace(
        batch,
        weight=change(batch.weight),
        per_token=changed(batch.per_token),
        per_sequence=changed(batch.per_sequence),
    )


def _without_now(batch: Batch) -> Batch:
    kept = [{k: v for k, v in d.items() if not k.startswith(_NOW)} for d in (batch.per_token, batch.per_sequence)]
    return replace(batch, per_token=kept[0], per_sequence=kept[1])


@dataclass(frozen=True)
class Subject:
    """An objective under test, and how to make input for it.

    Args:
        make: builds the objective.
        batch: makes a batch of so many atoms; by default one of the type that the objective is generic over.
        extras: makes what `reads` names and the kit does not know.
    """

    make: Callable[[], Objective[Any]]
    batch: Callable[[int], Batch] | None = None
    extras: Mapping[str, Extra] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The objective's class."""
        return type(self.make()).__name__

    def case(self, atoms: int = 8, seed: int = 0) -> Case:
        """Random input of so many atoms."""
        objective = self.make()
        generator = torch.Generator().manual_seed(seed)
        batch: Batch = self.batch(atoms) if self.batch else make_batch(batch_type(objective), atoms, generator)
        now = {name: _statistic(name, batch, generator) for name in sorted(objective.needs)}
        for name in sorted(objective.reads):
            batch = self._with_extra(batch, name, now, generator)
        return Case(batch, now).map(lambda x: x.double())

    def _with_extra(self, batch: Batch, name: str, now: Mapping[str, Tensor], generator: torch.Generator) -> Batch:
        if name in batch.per_token or name in batch.per_sequence:
            return batch
        if name in self.extras:
            made = self.extras[name](batch, generator)
        elif name in _PER_TOKEN:
            made = _near(now.get(_PER_TOKEN[name]), batch.num_tokens, generator)
        elif name in ("reward", "finished", "desirable"):
            made = torch.randn(batch.num_sequences, generator=generator)
            made = made if name == "reward" else (made > 0).to(made.dtype)
        else:
            raise ValueError(
                f"{self.name} reads {name!r}, of which the kit knows nothing; pass "
                f"extras={{{name!r}: lambda batch, generator: tensor}} to conforms_objective"
            )
        if made.shape[0] == batch.num_tokens:
            return batch.with_tokens(**{name: made})
        return batch.with_sequences(**{name: made})


_PER_TOKEN = {
    "reference_logp": "logp",
    "old_logp": "logp",
    "old_value": "value",
    "returns": "value",
    "advantage": "",
}
"""Per-token extras and the statistic that they are near, so that clipping sometimes bites and sometimes does not."""


def _near(statistic: Tensor | None, tokens: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(tokens, generator=generator)
    return noise if statistic is None else statistic + 0.3 * noise


def _statistic(name: str, batch: Batch, generator: torch.Generator) -> Tensor:
    size = batch.num_sequences if name in PER_SEQUENCE else batch.num_tokens
    noise = torch.randn(size, generator=generator)
    if name in ("score", "value"):
        return noise
    # Log-probabilities are negative; entropies, log-sum-exps and divergences are positive here.
    return -noise.abs() - 0.1 if name == "logp" else noise.abs() + 0.1


def batch_type(objective: Objective[Any]) -> type[Batch]:
    """The batch that the class says it takes: `class DPO(Objective[PreferenceBatch])`."""
    found = stated_batch_type(type(objective))
    if found is None:
        raise TypeError(
            f"{type(objective).__name__}: says not which batch it takes; write Objective[TokenBatch], or pass batch="
        )
    return TokenBatch if found is Batch else found


def make_batch(kind: type[Batch], atoms: int, generator: torch.Generator) -> Batch:
    """A batch of so many atoms: sequences, pairs of answers, or groups of two samples."""
    in_one = 2 if issubclass(kind, PreferenceBatch | RolloutBatch) else 1
    if not issubclass(kind, TokenBatch):
        raise TypeError(f"the kit cannot make a {kind.__name__}; pass batch=")
    rows, masks = [], []
    for sequence in range(atoms * in_one):
        # Answers to one prompt share its length.
        prompt, answer = _PROMPTS[sequence // in_one % len(_PROMPTS)], _ANSWERS[sequence % len(_ANSWERS)]
        rows.append(torch.randint(VOCABULARY, (prompt + answer,), generator=generator).tolist())
        masks.append([False] * prompt + [True] * answer)
    if len(masks) > 3:
        masks[3][-3] = False
    batch = kind.of(rows, masks)
    weight = torch.tensor([_WEIGHTS[i % len(_WEIGHTS)] for i in range(len(batch.weight))])
    batch = replace(batch, weight=weight)
    if isinstance(batch, RolloutBatch):
        group = torch.arange(batch.num_sequences) // in_one
        return replace(batch, temperature=0.7).with_sequences(group=group)
    if isinstance(batch, LabelledBatch):
        return batch.with_sequences(desirable=(torch.arange(batch.num_sequences) % 3 > 0).float())
    return batch
