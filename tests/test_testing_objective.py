"""The kit's checks of objectives: honest ones pass, and for every check there is a mutant that it catches.

Each mutant carries a bug that some framework shipped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch
from alignlab.objective import Loss, Objective, token_units
from alignlab.stats import Mean, TokenStats
from alignlab.testing import conforms_objective
from alignlab.testing.cases import Subject, batch_type
from alignlab.testing.objective import CHECKS


# ---- honest objectives ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Honest(Objective[PreferenceBatch]):
    """Prefer the chosen answer: mean over pairs of `-log sigmoid(beta * margin)`."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        gained = batch.sum_by_sequence(now.logp - batch.reference_logp)
        return batch.chosen(gained) - batch.rejected(gained)

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        margin = self.margin(now, batch)
        return Loss.over_pairs(-logsigmoid(self.beta * margin), batch, margin=margin)


@dataclass(frozen=True)
class Centred(Objective[LabelledBatch]):
    """Desirable answers above, others below the mean log-probability of the whole step; mean over answers."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp", "desirable"})

    def statistic(self, now: TokenStats, batch: LabelledBatch) -> Mean | None:
        return Mean.of(batch.sum_by_sequence(now.logp - batch.reference_logp), batch.weight)

    def __call__(self, now: TokenStats, batch: LabelledBatch, context: Tensor | None = None) -> Loss:
        assert context is not None
        gained = batch.sum_by_sequence(now.logp - batch.reference_logp) - context
        return Loss.over_sequences(-logsigmoid((2 * batch.desirable - 1) * gained), batch, gained=gained)


@dataclass(frozen=True)
class Distil(Objective[RolloutBatch]):
    """Mean over tokens of the divergence from a teacher, scaled by an extra that the kit does not know."""

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"kl_to_teacher"})
    reads: ClassVar[frozenset[str]] = frozenset({"trust"})

    def units(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        return {"loss": token_units(batch)}

    def __call__(self, now: TokenStats, batch: RolloutBatch, context: Tensor | None = None) -> Loss:
        trust = torch.where(batch.response_mask, batch.token("trust"), 0.0)
        return Loss.over_tokens(now.kl_to_teacher * trust, batch)


@conforms_objective(Honest)
def test_pairs(check: Callable[[], None]) -> None:
    check()


@conforms_objective(Centred)
def test_labelled_with_a_statistic(check: Callable[[], None]) -> None:
    check()


@conforms_objective(
    Distil,
    extras={"trust": lambda batch, generator: torch.rand(batch.num_tokens, generator=generator)},
    skip={
        "fused_and_eager_paths_agree": "no policy of the core gives kl_to_teacher",
    },
)
def test_rollouts_with_an_extra_of_their_own(check: Callable[[], None]) -> None:
    check()


# ---- mutants --------------------------------------------------------------------------------------------------------
class NoVersion(Honest):
    """Mean over pairs."""


@dataclass(frozen=True)
class Renamed(Honest):
    """Mean over pairs."""

    VERSION: ClassVar[str] = "1"

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__(strength)


@dataclass
class Thawed(Objective[PreferenceBatch]):
    """Mean over pairs."""

    VERSION: ClassVar[str] = "1"
    beta: float = 0.1

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        return Loss.over_pairs(batch.chosen(batch.sum_by_sequence(now.logp)), batch)


class Undeclared(Honest):
    """Mean over pairs."""

    reads: ClassVar[frozenset[str]] = frozenset()


class Noisy(Honest):
    """Mean over pairs, with noise on the margin."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(now, batch) * (1 + torch.rand(()))


class InPlace(Honest):
    """Mean over pairs; shifts the reference where it stands."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        batch.reference_logp.add_(0.1)
        return super().margin(now, batch)


class OtherName(Honest):
    """Mean over pairs, under a name that units() does not know."""

    def units(self, batch: PreferenceBatch) -> Mapping[str, Tensor]:
        return {"preference": batch.weight.sum()}


class Undocumented(Honest):
    """Minimises something."""


class Unweighted(Honest):
    """Mean over pairs, all counted once."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        return super().__call__(now, replace(batch, weight=torch.ones_like(batch.weight)), context)


class LocalMean(Honest):
    """Mean over the pairs of a micro-batch (trl#6024)."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        loss = super().__call__(now, batch, context)
        return Loss({"loss": loss.terms["loss"] / max(len(batch.weight), 1)}, loss.metrics)


class LongestOnRank(Honest):
    """Mean over pairs, scaled by the longest sequence of the micro-batch."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        loss = super().__call__(now, batch, context)
        longest = int(batch.lengths().max()) if batch.num_tokens else 1
        return Loss({"loss": loss.terms["loss"] / longest}, loss.metrics)


class NumeratorOnly(Honest):
    """Mean over pairs of a length-normalised margin; the lengths count the prompt too, by what stands there."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        seen = torch.zeros(batch.num_sequences, dtype=now.logp.dtype).index_add(0, batch.sequence_id, now.logp.detach())
        gained = batch.sum_by_sequence(now.logp - batch.reference_logp) / (1 + seen.abs())
        return batch.chosen(gained) - batch.rejected(gained)


class Multiplied(Honest):
    """Mean over pairs; masks by multiplying, which lets NaN through."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        masked = (now.logp - batch.reference_logp) * batch.response_mask
        gained = torch.zeros(batch.num_sequences, dtype=masked.dtype).index_add(0, batch.sequence_id, masked)
        return batch.chosen(gained) - batch.rejected(gained)


class Neighbourly(Honest):
    """Mean over pairs of a margin that is centred within the micro-batch."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        margin = super().margin(now, batch)
        return margin - margin.detach().sum() / max(len(margin), 1)


class NanWhenEmpty(Honest):
    """Mean over pairs (nanochat#590)."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        margin = self.margin(now, batch)
        return Loss({"loss": -logsigmoid(self.beta * margin).mean() * batch.weight.sum()})


class DetachedWhenEmpty(Honest):
    """Mean over pairs; a constant when there is none, so that a process would miss the backward pass."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        return super().__call__(now, batch, context) if batch.num_tokens else Loss({"loss": torch.zeros(())})


class WeightTimesInfinity(Honest):
    """Mean over pairs, weighted by multiplying: 0 * inf is NaN."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        per_pair = -logsigmoid(self.beta * self.margin(now, batch))
        return Loss({"loss": (per_pair * batch.weight).sum()})


class MetricTimesInfinity(Honest):
    """Mean over pairs; its metric is weighted by multiplying."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        loss, margin = super().__call__(now, batch, context), self.margin(now, batch).detach()
        return Loss(loss.terms, {"margin": Mean((margin * batch.weight).sum(), batch.weight.sum())})


class CentredOnAll(Honest):
    """Mean over pairs of a margin that is centred over all pairs, those of weight 0 too."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        margin = super().margin(now, batch)
        return margin - margin.mean()


class MetricOfBatch(Honest):
    """Mean over pairs; the metric is a mean over batches."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        loss = super().__call__(now, batch, context)
        return Loss(loss.terms, {"margin": Mean(loss.metrics["margin"].value(), torch.ones(()))})


class HalfWay(Honest):
    """Mean over pairs; the margin goes through bfloat16."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(now, batch).bfloat16().to(now.logp.dtype)


class SingleAlways(Honest):
    """Mean over pairs, in float32 whatever came in."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        return super().margin(now, batch).float()


class NaiveSigmoid(Honest):
    """Mean over pairs of `-log(sigmoid(x))`, in two steps."""

    def __call__(self, now: TokenStats, batch: PreferenceBatch, context: Tensor | None = None) -> Loss:
        return Loss.over_pairs(-torch.sigmoid(self.margin(now, batch)).log(), batch)


class PromptToo(Honest):
    """Mean over pairs; the prompt's tokens are counted with the answer's."""

    def margin(self, now: TokenStats, batch: PreferenceBatch) -> Tensor:
        gained = torch.zeros(batch.num_sequences, dtype=now.logp.dtype).index_add(0, batch.sequence_id, now.logp)
        return batch.chosen(gained) - batch.rejected(gained)


MUTANTS: list[tuple[str, type[Objective[Any]]]] = [
    ("version_is_a_literal", NoVersion),
    ("arguments_are_attributes", Renamed),
    ("arguments_are_attributes", Thawed),
    ("declares_what_it_reads", Undeclared),
    ("same_input_gives_the_same_bits", Noisy),
    ("same_input_gives_the_same_bits", InPlace),
    ("aggregation_is_declared", OtherName),
    ("aggregation_is_declared", Undocumented),
    ("weights_count_as_copies", Unweighted),
    ("gradient_is_the_same_however_the_batch_is_split", LocalMean),
    ("gradient_is_the_same_on_two_ranks", LongestOnRank),
    ("masked_values_change_nothing", NumeratorOnly),
    ("masked_values_change_nothing", Multiplied),
    ("order_and_neighbours_change_nothing", Neighbourly),
    ("empty_and_masked_batches_are_free", NanWhenEmpty),
    ("empty_and_masked_batches_are_free", DetachedWhenEmpty),
    ("what_has_weight_0_cannot_leak_in", WeightTimesInfinity),
    ("what_has_weight_0_cannot_leak_in", MetricTimesInfinity),
    ("what_has_weight_0_cannot_leak_in", CentredOnAll),
    ("metrics_are_means_over_units", MetricOfBatch),
    ("float32_agrees_with_float64", HalfWay),
    ("float32_agrees_with_float64", SingleAlways),
    ("far_from_the_reference_stays_finite", NaiveSigmoid),
    ("fused_and_eager_paths_agree", PromptToo),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_mutant_is_caught(name: str, mutant: type[Objective[Any]]) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    check(Subject(Honest))
    with pytest.raises(AssertionError, match=mutant.__name__):
        check(Subject(mutant))


def test_every_check_has_a_mutant() -> None:
    assert {c.__name__ for c in CHECKS} == {name for name, _ in MUTANTS}


# ---- what the kit makes ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [TokenBatch, PreferenceBatch, LabelledBatch, RolloutBatch])
def test_batches_are_of_the_declared_type_and_unequal(kind: type[Batch]) -> None:
    class Takes(Objective[kind]):  # type: ignore[valid-type]
        """Tokens."""

        def __call__(self, now: TokenStats, batch: Any, context: Tensor | None = None) -> Loss:
            raise NotImplementedError

    assert batch_type(Takes()) is kind
    batch = Subject(Takes).case(5).batch
    assert type(batch) is kind and batch.num_units == 5
    assert len(set(batch.lengths().tolist())) > 2 and len(set(batch.weight.tolist())) > 2


def test_an_extra_that_nobody_makes_is_named() -> None:
    with pytest.raises(ValueError, match=r"Distil reads 'trust'.*extras="):
        Subject(Distil).case()


def test_skipping_a_check_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no check \\['tipo'\\]"):
        conforms_objective(Honest, skip={"tipo": "because"})
