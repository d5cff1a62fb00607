"""Further faults of objectives, one class each, so that every check of the kit has one."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from honest_objectives import Paired
from honest_policy_gradients import GRPO
from masking_faults import PromptScored, sum_all
from objective_faults import Fault
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab import Loss, Mean, Objective, PreferenceBatch, RolloutBatch, TokenStats


class NoVersion(Paired):
    """Mean over pairs."""


@dataclass(frozen=True)
class Renamed(Paired):
    """Mean over pairs."""

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__(strength)


@dataclass
class Thawed(Objective[PreferenceBatch]):
    """Mean over pairs."""

    beta: float = 0.1

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return self.loss(batch, loss=-self.beta * batch.chosen(batch.sum_by_sequence(stats.logp)))


class Undeclared(Paired):
    """Mean over pairs."""

    reads: ClassVar[frozenset[str]] = frozenset()


class Noisy(Paired):
    """Mean over pairs, with noise on the margin."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(stats, batch) * (1 + torch.rand(()))


class InPlace(Paired):
    """Mean over pairs; shifts the reference where it stands."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        batch.reference_logp.add_(0.1)
        return super().margin(stats, batch)


class Undocumented(Paired):
    """Minimises something."""


class LongestOnRank(Paired):
    """Mean over pairs, scaled by the longest sequence of the micro-batch."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        longest = int(batch.lengths().max()) if batch.num_tokens else 1
        return super().margin(stats, batch) / longest


class Multiplied(Paired):
    """Mean over pairs; masks by multiplying, which lets NaN through."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        ratio = sum_all((stats.logp - batch.reference_logp) * batch.response_mask, batch)
        return batch.chosen(ratio) - batch.rejected(ratio)


class Neighbourly(Paired):
    """Mean over pairs of a margin that is centred within the micro-batch."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        margin = super().margin(stats, batch)
        return margin - margin.detach().sum() / max(len(margin), 1)


class NanWhenEmpty(Paired):
    """Mean over pairs (nanochat#590)."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        margin = self.margin(stats, batch)
        return Loss({"loss": -logsigmoid(self.beta * margin).mean() * batch.weight.sum()})


class DetachedWhenEmpty(Paired):
    """Mean over pairs; a constant where there is none, so that a process would miss the backward pass."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return super().__call__(stats, batch) if batch.num_tokens else Loss({"loss": torch.zeros(())})


class WeightTimesInfinity(Paired):
    """Mean over pairs, weighted by multiplying: 0 * inf is NaN."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return Loss({"loss": (-logsigmoid(self.beta * self.margin(stats, batch)) * batch.weight).sum()})


class MetricTimesInfinity(Paired):
    """Mean over pairs; its metric is weighted by multiplying."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        margin = self.margin(stats, batch)
        mean = Mean((margin.detach() * batch.weight).sum(), batch.weight.sum())
        return self.loss(batch, loss=-logsigmoid(self.beta * margin), metrics={"margin": mean})


class CentredOnAll(Paired):
    """Mean over pairs of a margin that is centred over all pairs, those of weight 0 too."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        margin = super().margin(stats, batch)
        return margin - margin.mean()


class HalfWay(Paired):
    """Mean over pairs; the margin goes through bfloat16."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(stats, batch).bfloat16().to(stats.logp.dtype)


class SingleAlways(Paired):
    """Mean over pairs, in float32 whatever the input is."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(stats, batch).float()


class NaiveSigmoid(Paired):
    """Mean over pairs of `-log(sigmoid(x))`, in two steps."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return self.loss(batch, loss=-torch.sigmoid(self.margin(stats, batch)).log())


class WrongAdvantage(GRPO):
    """Mean over tokens; the advantage has the wrong sign."""

    def surrogate(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return super().surrogate(ratio, -advantage, logp)


class AwayFromTeacher(Objective[RolloutBatch]):
    """Mean over tokens of the negative divergence from a teacher."""

    needs: ClassVar[frozenset[str]] = frozenset({"kl_from_teacher"})

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=-stats.kl_from_teacher)


MORE: tuple[Fault, ...] = (
    Fault("no version", NoVersion, "version_is_a_literal"),
    Fault("argument under another name", Renamed, "arguments_are_attributes"),
    Fault("argument that can be changed", Thawed, "arguments_are_attributes"),
    Fault("undeclared extra", Undeclared, "declares_what_it_reads"),
    Fault("noise", Noisy, "same_input_gives_the_same_bits"),
    Fault("changed in place", InPlace, "same_input_gives_the_same_bits"),
    Fault("undocumented mean", Undocumented, "aggregation_is_declared"),
    Fault("longest of the micro-batch", LongestOnRank, "gradient_is_the_same_on_two_ranks"),
    Fault("masked by multiplying", Multiplied, "masked_values_change_nothing"),
    Fault("centred within the micro-batch", Neighbourly, "order_and_neighbours_change_nothing"),
    Fault("NaN where empty", NanWhenEmpty, "empty_and_masked_batches_are_free"),
    Fault("constant where empty", DetachedWhenEmpty, "empty_and_masked_batches_are_free"),
    Fault("weighted by multiplying", WeightTimesInfinity, "weight_0_changes_nothing"),
    Fault("metric weighted by multiplying", MetricTimesInfinity, "weight_0_changes_nothing"),
    Fault("centred on all", CentredOnAll, "weight_0_changes_nothing"),
    Fault("through bfloat16", HalfWay, "float32_agrees_with_float64"),
    Fault("float32 always", SingleAlways, "float32_agrees_with_float64"),
    Fault("naive sigmoid", NaiveSigmoid, "far_from_the_reference_stays_finite"),
    Fault("prompt tokens scored", PromptScored, "fused_and_eager_paths_agree"),
    Fault("sign of the advantage", WrongAdvantage, "learns_the_right_way"),
    Fault("sign of the divergence", AwayFromTeacher, "learns_the_right_way"),
)
