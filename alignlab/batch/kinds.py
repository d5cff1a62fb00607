"""The kinds of batch: texts, labelled answers, ranked answers, rollouts.

Axes: T tokens, S sequences, W units.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.batch.base import Batch
from alignlab.batch.checks import malformed


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Texts and answered instructions: the unit is the sequence."""


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """Single answers that are good or bad: the unit is the answer.

    Where an objective reads `mismatched`, each unit holds a second sequence: the same prompt with the answer to another
    one. It is there for a step-wide baseline (KTO's) and is never trained on.
    """

    @property
    def desirable(self) -> Tensor:
        """`(W,)` 1 where the answer is a good one, 0 where it is a bad one."""
        return self.of_unit("desirable")

    def answer(self, x: Tensor) -> Tensor:
        """`(W,)` entries of the labelled answers of an `(S,)` tensor."""
        return x[self.rank() == 0]

    def mismatched(self, x: Tensor) -> Tensor:
        """`(W,)` entries of the answers to other prompts of an `(S,)` tensor."""
        return x[self.rank() == 1]

    def weight_by_sequence(self) -> Float[Tensor, "S"]:
        """Weight of each labelled answer; 0 for the answers to other prompts."""
        return self.weight[self.unit] * (self.rank() == 0)

    def trained(self) -> Self:
        """The labelled answers alone."""
        first = (self.rank() == 0).nonzero()[:, 0].tolist()
        return self if len(first) == self.num_sequences else self._take(first, range(len(first)), range(len(first)))


@dataclass(frozen=True)
class PreferenceBatch(Batch):
    """Ranked answers to one prompt, the best first: the unit is the pair, or the list where there are more than two."""

    @classmethod
    def _default_units(cls, sequences: int) -> list[int]:
        return [s // 2 for s in range(sequences)]

    def chosen(self, x: Tensor) -> Tensor:
        """`(W,)` entries of the chosen answers of an `(S,)` tensor."""
        self._check_pairs()
        return x[0::2]

    def rejected(self, x: Tensor) -> Tensor:
        """`(W,)` entries of the rejected answers of an `(S,)` tensor."""
        self._check_pairs()
        return x[1::2]

    def check_numbers(self) -> None:
        """Also refuse a unit of one answer."""
        super().check_numbers()
        counts = torch.bincount(self.unit, minlength=self.num_units)
        if bool((counts < 2).any()):
            raise malformed(
                self, f"unit {int((counts < 2).nonzero()[0])} has one answer; a preference needs two or more"
            )

    def _check_pairs(self) -> None:
        # Every unit has at least two answers, so a batch with twice as many sequences as units holds only pairs.
        if self.num_sequences != 2 * self.num_units:
            raise ValueError(
                f"{type(self).__name__}: chosen() and rejected() need pairs, and its {self.num_units} units hold "
                f"{self.num_sequences} answers; read lists through `unit` and `rank()`"
            )


@dataclass(frozen=True)
class RolloutBatch(Batch):
    """Sampled answers: the unit is the sample.

    Extras: `old_logp`, `sampler_logp`, `reference_logp`, `old_value`, `advantage`, `returns` per token (read at
    response tokens only);
    `reward`, `finished` (1 where a stop token ended it) and `group` (samples of one prompt share it) per sequence.
    """

    @property
    def group(self) -> Int[Tensor, "S"]:
        """`(S,)` number of the prompt that each sample answers."""
        return self.sequence("group")

    @property
    def old_logp(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: under the policy that sampled; recomputed by the trainer, fixed while its rollouts are used."""
        return self.token("old_logp")

    @property
    def sampler_logp(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: under the distribution that each token was drawn from, by the sampler's own arithmetic."""
        return self.token("sampler_logp")

    @property
    def old_value(self) -> Float[Tensor, "T"]:
        """`(T,)` reward units: the critic's forecast when the rollouts were made."""
        return self.token("old_value")

    @property
    def advantage(self) -> Float[Tensor, "T"]:
        """`(T,)` how much better than expected each token was."""
        return self.token("advantage")

    @property
    def returns(self) -> Float[Tensor, "T"]:
        """`(T,)` reward units: target of the critic's forecast."""
        return self.token("returns")

    def as_pairs(self, pairs: Sequence[tuple[int, int]], weight: Float[Tensor, "W"] | None = None) -> PreferenceBatch:
        """Some samples as preference pairs, with their per-token and per-sequence extras and temperature.

        Args:
            pairs: the chosen and the rejected sample of each.
            weight: of each pair; 1 by default.
        """
        index = [sample for pair in pairs for sample in pair]
        taken = self._take(index, range(len(index)), index)
        shared = {f.name: getattr(taken, f.name) for f in fields(taken) if f.name not in ("unit", "weight", "per_unit")}
        unit = torch.arange(len(index)) // 2
        return PreferenceBatch(**shared, unit=unit, weight=torch.ones(len(pairs)) if weight is None else weight)
