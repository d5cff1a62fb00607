"""The 27 faults of objectives that some framework shipped or that people make, one class each.

Each names the check that catches it; the contract refuses some, and three only an oracle can tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from honest_objectives import KTO, Paired
from honest_policy_gradients import Rolled
from masking_faults import (
    AllTokens,
    BatchMean,
    ListOffByOne,
    LocalUnits,
    MetricPerBatch,
    MissingEOS,
    NeighboursLabel,
    NumeratorOnly,
    PolicyOneTokenLate,
    PromptScored,
    ReferenceOneTokenLate,
    StepLabelLate,
    TokensOverAnswers,
    TwoPOverP,
    WeightsForgotten,
)
from torch import Tensor

from alignlab import LabelledBatch, Loss, Mean, Objective, PreferenceBatch, TokenStats
from alignlab.objective import log_ratio, sequences


@dataclass(frozen=True)
class Fault:
    """A fault, and the check that catches it.

    Args:
        name: of the fault.
        mutant: an objective that has it.
        check: name of the check; empty where the contract refuses it, or where only an oracle can tell.
    """

    name: str
    mutant: type[Objective[Any]]
    check: str = ""


# ---- constants of the step -------------------------------------------------------------------------------------------
class MicroBatchBaseline(KTO):
    """Mean over answers; the baseline is the micro-batch's own."""

    def gain(self, stats: TokenStats, batch: LabelledBatch) -> Tensor:
        ratio = batch.answer(log_ratio(stats, batch))
        return ratio - ratio.detach().sum() / max(len(ratio), 1)


class BaselineWithGradient(KTO):
    """Mean over answers; the baseline is asked for with its gradient."""

    def step_means(self, stats: TokenStats, batch: LabelledBatch) -> Mapping[str, Mean]:
        ratio = batch.mismatched(log_ratio(stats, batch))
        return {"baseline": Mean((ratio * batch.weight).sum(), batch.weight.sum())}


class MismatchedTrained(KTO):
    """Mean over answers, with the loss of whatever sequences its batch holds."""

    per = {"loss": sequences}

    def gain(self, stats: TokenStats, batch: LabelledBatch) -> Tensor:
        return log_ratio(stats, batch) - batch.step["baseline"].clamp_min(0)

    def sign(self, batch: LabelledBatch) -> Tensor:
        return super().sign(batch)[batch.unit]


class MismatchedRead(KTO):
    """Mean over answers of the NLL of the mismatched ones."""

    def __call__(self, stats: TokenStats, batch: LabelledBatch) -> Loss:
        return self.loss(batch, loss=-batch.mismatched(batch.sum_by_sequence(stats.logp)))


@dataclass(frozen=True)
class StaleReference(Paired):
    """Mean over pairs; the reference of the first batch of a size is kept."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        kept = vars(self).setdefault("kept", {})
        reference = kept.setdefault(batch.num_tokens, batch.reference_logp)
        return super().margin(stats, batch.with_tokens(reference_logp=reference))


# ---- the wrong way ---------------------------------------------------------------------------------------------------
class Sign(Paired):
    """Mean over pairs; the margin has the wrong sign."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        return -super().margin(stats, batch)


class ReferenceIsPolicy(Paired):
    """Mean over pairs; the policy is its own reference."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(stats, batch.with_tokens(reference_logp=stats.logp.detach()))


class SwappedClip(Rolled):
    """Mean over tokens; the smaller of the two losses is taken."""

    def surrogate(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return torch.minimum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))


class RatioNotStopped(Rolled):
    """Mean over tokens; CISPO, whose ratio has a gradient of its own."""

    def surrogate(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return -ratio.clamp(0.0, 1.3) * advantage * logp


class OtherSidesLabel(KTO):
    """Mean over answers; bad ones are taken for good ones."""

    def sign(self, batch: LabelledBatch) -> Tensor:
        return -super().sign(batch)


# ---- what only an oracle can tell ------------------------------------------------------------------------------------
class BetaTwice(Paired):
    """Mean over pairs; the margin is scaled by beta squared."""

    VERSION: ClassVar[str] = "1"

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        return self.beta * super().margin(stats, batch)


class TokenMeanForSum(Paired):
    """Mean over pairs; log-ratios are averaged over the tokens of an answer, where they should be summed."""

    VERSION: ClassVar[str] = "1"

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        ratio = batch.mean_by_sequence(stats.logp - batch.reference_logp)
        return batch.chosen(ratio) - batch.rejected(ratio)


class ClampBeforeMean(KTO):
    """Mean over answers; log-ratios are clamped before the baseline is taken of them, not after."""

    VERSION: ClassVar[str] = "1"

    def step_means(self, stats: TokenStats, batch: LabelledBatch) -> Mapping[str, Mean]:
        return {"baseline": Mean.of(batch.mismatched(log_ratio(stats, batch)).clamp_min(0), batch.weight)}


FAULTS: tuple[Fault, ...] = (
    Fault("policy one token late", PolicyOneTokenLate, "masked_values_change_nothing"),
    Fault("batch mean for sum", BatchMean, "gradient_is_the_same_however_the_batch_is_split"),
    Fault("local units", LocalUnits, "gradient_is_the_same_however_the_batch_is_split"),
    Fault("stale reference", StaleReference, "same_input_gives_the_same_bits"),
    Fault("statistic of the micro-batch", MicroBatchBaseline, "gradient_is_the_same_however_the_batch_is_split"),
    Fault("statistic with gradient", BaselineWithGradient),
    Fault("weights forgotten", WeightsForgotten, "weights_count_as_copies"),
    Fault("metric per batch", MetricPerBatch, "metrics_are_means_over_units"),
    Fault("prompt tokens scored", PromptScored, "masked_values_change_nothing"),
    Fault("neighbour's label", NeighboursLabel, "order_and_neighbours_change_nothing"),
    Fault("step label late", StepLabelLate, "every_response_token_counts"),
    Fault("missing EOS", MissingEOS, "every_response_token_counts"),
    Fault("reference one token late", ReferenceOneTokenLate, "every_response_token_counts"),
    Fault("token mean for sum", TokenMeanForSum),
    Fault("mask in the numerator only", NumeratorOnly, "prompt_length_changes_nothing"),
    Fault("units of all tokens", AllTokens, "prompt_length_changes_nothing"),
    Fault("sign", Sign, "learns_the_right_way"),
    Fault("beta twice", BetaTwice),
    Fault("reference = policy", ReferenceIsPolicy, "everything_declared_counts"),
    Fault("clamp before the mean", ClampBeforeMean),
    Fault("mismatched answers trained", MismatchedTrained),
    Fault("2P over P", TwoPOverP),
    Fault("tokens over answers", TokensOverAnswers, "aggregation_is_declared"),
    Fault("swapped clip", SwappedClip, "learns_the_right_way"),
    Fault("ratio not stopped", RatioNotStopped, "learns_the_right_way"),
    Fault("the other side's label", OtherSidesLabel, "learns_the_right_way"),
    Fault("list off by one", ListOffByOne, "every_sequence_counts"),
)
ORACLE = (TokenMeanForSum, BetaTwice, ClampBeforeMean)
"""Legitimate losses of another name: only a closed-form optimum can tell."""
