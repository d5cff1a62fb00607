"""An advantage under test, and random rollout buffers for it.

Axes: T tokens, S sequences.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from alignlab.advantage import Advantage
from alignlab.batch import Batch, RolloutBatch
from alignlab.testing.batches import make_batch

GROUPS, EACH = 4, 4
"""Prompts of the kit's buffer, and samples of each."""

RolloutExtra: TypeAlias = Callable[[Batch, torch.Generator], Tensor]
"""Makes a further `(T, ...)` or `(S, ...)` tensor of a buffer."""


@dataclass(frozen=True)
class AdvantageSubject:
    """An advantage under test.

    Args:
        make: builds the advantage.
        extras: makes what `reads` names and the kit does not know.
    """

    make: Callable[[], Advantage]
    extras: Mapping[str, RolloutExtra] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The advantage's class."""
        return type(self.make()).__name__

    @property
    def reads(self) -> frozenset[str]:
        """The extras that it declares."""
        return self.make().reads

    def buffer(self, seed: int = 0, each: int = EACH) -> RolloutBatch:
        """A random buffer with the extras that are declared and no others, in float64."""
        generator = torch.Generator().manual_seed(seed)
        batch = make_batch(RolloutBatch, GROUPS * each, generator)
        batch = replace(batch, weight=torch.ones(batch.num_units))
        logp = -torch.rand(batch.num_tokens, generator=generator) - 0.1
        noise = [torch.randn(batch.num_tokens, generator=generator) for _ in range(2)]
        tokens = {"old_logp": logp, "reference_logp": logp + 0.3 * noise[0], "old_value": noise[1]}
        reward = torch.randn(batch.num_sequences, generator=generator)
        of_samples = {"reward": reward, "finished": (noise[0][: len(reward)] > 0).float()}
        group = torch.arange(batch.num_sequences) // each
        batch = batch.with_tokens(**{k: v.double() for k, v in tokens.items() if k in self.reads})
        batch = batch.with_sequences(**{k: v.double() for k, v in of_samples.items() if k in self.reads})
        batch = batch.with_sequences(group=group) if "group" in self.reads else batch
        return self._with_own(batch, generator)

    def _with_own(self, batch: RolloutBatch, generator: torch.Generator) -> RolloutBatch:
        for name in sorted(self.reads - {*batch.per_token, *batch.per_sequence}):
            if name not in self.extras:
                raise ValueError(
                    f"{self.name} reads {name!r}, which the kit does not know; pass extras={{{name!r}: lambda batch, "
                    f"generator: tensor}} to conforms_advantage"
                )
            made = self.extras[name](batch, generator)
            per_token = made.shape[0] == batch.num_tokens
            batch = batch.with_tokens(**{name: made}) if per_token else batch.with_sequences(**{name: made})
        return batch

    def plain_buffer(self, reward: Tensor) -> RolloutBatch:
        """The buffer with given rewards and nothing else to tell samples apart by: no KL, no values, all finished."""
        batch, zero = self.buffer(), torch.zeros
        constant = {"old_logp": -1.0, "reference_logp": -1.0, "old_value": 0.0}
        tokens = {k: zero(batch.num_tokens).to(reward) + v for k, v in constant.items() if k in self.reads}
        samples = {"reward": reward, "finished": torch.ones_like(reward)}
        return batch.with_tokens(**tokens).with_sequences(**{k: v for k, v in samples.items() if k in self.reads})

    def of(self, batch: RolloutBatch) -> Tensor:
        """`(T,)` advantages of a buffer, by a new object."""
        return self.make()(batch).advantage
