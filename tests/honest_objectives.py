"""Objectives of many families, written as a plugin's author would: none of them may raise a false alarm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, relu
from torch.nn.functional import logsigmoid

from alignlab import LabelledBatch, Loss, Mean, Objective, PreferenceBatch, RolloutBatch, TokenBatch, TokenStats
from alignlab.objective import chosen_tokens, log_ratio, pair_metrics, pairs, sequences

REFERENCE = frozenset({"reference_logp"})


# ---- pairs -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Paired(Objective[PreferenceBatch]):
    """DPO, in the form that its mutants vary: mean over pairs of `-log sigmoid(beta * margin)`."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = REFERENCE
    beta: float = 0.3

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        ratio = log_ratio(stats, batch)
        return batch.chosen(ratio) - batch.rejected(ratio)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        margin = self.margin(stats, batch)
        return self.loss(batch, loss=-logsigmoid(self.beta * margin), metrics={"margin": margin})


class Hinge(Paired):
    """Mean over pairs of `max(0, 1 - beta * margin)`."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return self.loss(batch, loss=relu(1 - self.beta * self.margin(stats, batch)))


class SLiC(Objective[PreferenceBatch]):
    """Mean over pairs of `max(0, 1 - margin)`, without a reference: wide margins have no gradient."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        logp = batch.sum_by_sequence(stats.logp)
        return self.loss(batch, loss=relu(1 - batch.chosen(logp) + batch.rejected(logp)))


class Smoothed(Paired):
    """Mean over pairs of DPO's loss of both labels, weighted by the probability of each."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = REFERENCE | {"probability"}

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        logit, p = self.beta * self.margin(stats, batch), batch.of_unit("probability")
        return self.loss(batch, loss=-p * logsigmoid(logit) - (1 - p) * logsigmoid(-logit))


@dataclass(frozen=True)
class SimPO(Objective[PreferenceBatch]):
    """Mean over pairs of `-log sigmoid(beta * margin - gamma)`, the margin of mean log-probabilities per token."""

    VERSION: ClassVar[str] = "1"
    beta: float = 2.0
    gamma: float = 0.5

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(batch.mean_by_sequence(stats.logp), batch)
        return self.loss(batch, loss=-logsigmoid(self.beta * metrics["margin"] - self.gamma), metrics=metrics)


@dataclass(frozen=True)
class ORPO(Objective[PreferenceBatch]):
    """Mean over chosen tokens of the NLL, plus the mean over pairs of the log-sigmoid of the log odds ratio."""

    VERSION: ClassVar[str] = "1"
    per = {"nll": chosen_tokens, "odds": pairs}
    weight: float = 0.2

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        logp = batch.mean_by_sequence(stats.logp).clamp_max(-1e-6)
        odds = logp - torch.log(-torch.expm1(logp))
        margin = batch.chosen(odds) - batch.rejected(odds)
        return self.loss(
            batch, nll=-stats.logp, odds=-self.weight * logsigmoid(margin), metrics={"odds_margin": margin}
        )


class MarginReward(Objective[PreferenceBatch]):
    """Mean over pairs of `-log sigmoid(r_chosen - r_rejected - margin)`, the margin as the raters gave it."""

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    reads: ClassVar[frozenset[str]] = frozenset({"margin", "agreement"})

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        gap = batch.chosen(stats.score) - batch.rejected(stats.score)
        loss = -batch.of_unit("agreement") * logsigmoid(gap - batch.of_unit("margin"))
        return self.loss(batch, loss=loss, metrics={"gap": gap})


class PlackettLuce(Objective[PreferenceBatch]):
    """Mean over lists of the negative log-likelihood of the ranking."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = REFERENCE

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        ratio, rank = log_ratio(stats, batch), batch.rank()
        worse = (batch.unit[None] == batch.unit[:, None]) & (self.from_rank(rank)[:, None] <= rank[None])
        nll = ratio[None].expand_as(worse).masked_fill(~worse, -torch.inf).logsumexp(1) - ratio
        return self.loss(batch, loss=batch.sum_by_unit(nll))

    def from_rank(self, rank: Tensor) -> Tensor:
        """Best rank that each answer competes with."""
        return rank


# ---- labels ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class KTO(Objective[LabelledBatch]):
    """Mean over answers of `1 - sigmoid(+-beta * (log-ratio - baseline))`."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = REFERENCE | {"desirable", "mismatched"}
    beta: float = 0.3

    def step_means(self, stats: TokenStats, batch: LabelledBatch) -> Mapping[str, Mean]:
        return {"baseline": Mean.of(batch.mismatched(log_ratio(stats, batch)), batch.weight)}

    def gain(self, stats: TokenStats, batch: LabelledBatch) -> Tensor:
        return batch.answer(log_ratio(stats, batch)) - batch.step["baseline"].clamp_min(0)

    def __call__(self, stats: TokenStats, batch: LabelledBatch) -> Loss:
        gain = self.gain(stats, batch)
        return self.loss(
            batch, loss=1 - torch.sigmoid(self.sign(batch) * self.beta * gain), metrics={"log_ratio": gain}
        )

    def sign(self, batch: LabelledBatch) -> Tensor:
        """1 for good answers, -1 for bad ones."""
        return 2 * batch.desirable - 1


class GoodOnly(Objective[LabelledBatch]):
    """Mean over answers of the NLL of the good ones; bad ones have no gradient."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"desirable"})

    def __call__(self, stats: TokenStats, batch: LabelledBatch) -> Loss:
        return self.loss(batch, loss=-batch.desirable * batch.answer(batch.sum_by_sequence(stats.logp)))


# ---- texts and teachers ----------------------------------------------------------------------------------------------
class Distil(Objective[TokenBatch]):
    """Mean over tokens of the divergence from a teacher, both ways."""

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"kl_to_teacher", "kl_from_teacher"})

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        metrics = {"reverse": stats.kl_to_teacher, "forward": stats.kl_from_teacher}
        return self.loss(batch, loss=0.5 * (stats.kl_to_teacher + stats.kl_from_teacher), metrics=metrics)


class Trusted(Objective[RolloutBatch]):
    """Mean over tokens of the divergence to a teacher, scaled by an extra that the kit does not know."""

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"kl_to_teacher"})
    reads: ClassVar[frozenset[str]] = frozenset({"trust"})

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=stats.kl_to_teacher * batch.scored(batch.token("trust")))


class StepLabels(Objective[TokenBatch]):
    """Mean over tokens that end a step of the error of `value` there: a process reward model."""

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    reads: ClassVar[frozenset[str]] = frozenset({"step_label"})

    def label(self, batch: TokenBatch) -> Tensor:
        return batch.scored(batch.token("step_label"))

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=(batch.scored(stats.value) - self.label(batch)).square())


class StepEnds(StepLabels):
    """Mean over tokens that end a step of the error of `value` there; other tokens have no gradient."""

    VERSION: ClassVar[str] = "1"
    per = {"loss": lambda batch: batch.weight_by_token() * (batch.token("step_label") > 0.6)}


class OutcomeRegression(Objective[TokenBatch]):
    """Mean over answers of the squared error of a reward model's score."""

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    reads: ClassVar[frozenset[str]] = frozenset({"reward"})
    per = {"loss": sequences}

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=(stats.score - batch.sequence("reward").to(stats.score.dtype)).square())


EXTRAS: dict[str, Any] = {
    "trust": lambda batch, generator: torch.rand(batch.num_tokens, generator=generator),
    "step_label": lambda batch, generator: torch.rand(batch.num_tokens, generator=generator),
}
"""Makes the extras that the kit does not know."""
HONEST: tuple[type[Objective[Any]], ...] = (
    Paired,
    Hinge,
    SLiC,
    Smoothed,
    SimPO,
    ORPO,
    MarginReward,
    KTO,
    GoodOnly,
    Distil,
    Trusted,
    StepLabels,
    StepEnds,
    OutcomeRegression,
)
"""All but `PlackettLuce`, which takes lists."""
