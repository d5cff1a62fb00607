"""Losses that train a policy on preference pairs directly, held near a frozen reference.

Axes: T tokens, S sequences, P pairs.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.batch import PreferenceBatch
from alignlab.objective import Loss, Objective
from alignlab.stats import Mean, TokenStats


@dataclass(frozen=True)
class DPO(Objective[PreferenceBatch]):
    """Prefer the chosen answer to the rejected one by more than the reference does.

    Mean over pairs of `-log sigmoid(beta * margin)`, where the margin, in nats, is the policy's preference for the
    chosen answer minus the reference's, each summed over the response tokens.

    Args:
        beta: price of leaving the reference, per nat; > 0. Small values let the policy go far.

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"DPO: beta must be > 0, got {self.beta}; it scales the margin")

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        gained = gained_logp(now, batch)
        margin = batch.chosen(gained) - batch.rejected(gained)
        return Loss.over_pairs(-logsigmoid(self.beta * margin), batch) | pair_metrics(gained, batch)


@dataclass(frozen=True)
class IPO(Objective[PreferenceBatch]):
    """Prefer the chosen answer by a fixed amount: mean over pairs of `(margin - 1 / (2 tau))^2`.

    The margin is DPO's, in nats, summed over the response tokens (not averaged: some frameworks do). Unlike DPO it
    has a finite optimum on preferences that are never contradicted.

    Args:
        tau: price of leaving the reference; > 0.

    Source: Azar et al. 2023, arXiv:2310.12036, eq. 17.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    tau: float = 0.1

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ValueError(f"IPO: tau must be > 0, got {self.tau}; the wanted margin is 1 / (2 tau)")

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        gained = gained_logp(now, batch)
        margin = batch.chosen(gained) - batch.rejected(gained)
        loss = (margin - 1 / (2 * self.tau)).square()
        return Loss.over_pairs(loss, batch) | pair_metrics(gained, batch)


def gained_logp(now: TokenStats, batch: PreferenceBatch) -> Float[Tensor, "S"]:
    """`log pi(y|x) - log pi_ref(y|x)` of each answer, in nats, over its response tokens."""
    return batch.sum_by_sequence(now.logp - batch.reference_logp.to(now.logp.dtype))


def pair_metrics(gained: Float[Tensor, "S"], batch: PreferenceBatch) -> Loss:
    """Margin, accuracy, and how far each side has moved from the reference (likelihood displacement), in nats."""
    chosen, rejected = batch.chosen(gained), batch.rejected(gained)
    margin = chosen - rejected
    right = (margin > 0).to(margin.dtype) + 0.5 * (margin == 0).to(margin.dtype)
    found = {"margin": margin, "accuracy": right, "chosen_gain": chosen, "rejected_gain": rejected}
    return Loss({}, {name: Mean.of(x, batch.weight) for name, x in found.items()})
