"""An objective returns values; what they are a mean over, weights, combinators: closed forms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from alignlab import Loss, Mean, Objective, PreferenceBatch, TokenBatch, TokenStats, WeightedSum, Wrapped
from alignlab.batch import Batch
from alignlab.objective import Weights, chosen_tokens, pairs, sequences, tokens, units
from alignlab.training.step import backward, whole_step

BAD = [math.inf, -math.inf, math.nan]
WEIGHT = torch.tensor([1.0, 0.0, 0.5])


def three_pairs() -> PreferenceBatch:
    return replace(PreferenceBatch.of([[1, 2]] * 6, [[False, True]] * 6), weight=WEIGHT)


def three_texts() -> TokenBatch:
    """Answers of two, one and one scored tokens."""
    masks = [[False, True, True], [False, True], [False, False, True]]
    return replace(TokenBatch.of([[1, 2, 3], [1, 2], [1, 2, 3]], masks), weight=WEIGHT)


def given(weights: Weights, name: str = "loss") -> Objective[Any]:
    """An objective whose values are the statistic `logp` itself."""

    class Given(Objective[Batch]):
        """Mean of what is given."""

        VERSION: ClassVar[str] = "1"
        per = {name: weights}

        def __call__(self, stats: TokenStats, batch: Batch) -> Loss:
            return self.loss(batch, **{name: stats.logp}, metrics={"metric": stats.logp})

    return Given()


CASES: dict[str, tuple[Weights, Any, list[float], list[float]]] = {
    # What it is a mean over: weights, batch, values (NaN where a bad one goes), gradient of the sum.
    "pairs": (pairs, three_pairs(), [3.0, math.nan, 8.0], [1.0, 0.0, 0.5]),
    "sequences": (sequences, three_texts(), [3.0, math.nan, 8.0], [1.0, 0.0, 0.5]),
    "tokens": (
        tokens,
        three_texts(),
        [math.nan, 1.0, 2.0, math.nan, math.nan, math.nan, math.nan, 8.0],
        [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5],
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", list(CASES))
def test_what_has_weight_0_adds_nothing_and_has_no_gradient(name: str, bad: float) -> None:
    """3 + 8 / 2 of pairs and sequences; 1 + 2 + 8 / 2 of tokens."""
    weights, batch, values, gradient = CASES[name]
    x = torch.tensor(values).nan_to_num(bad, bad, bad).requires_grad_()
    objective = given(weights)
    loss = objective(TokenStats({"logp": x}), batch)
    (term,) = loss.terms.values()
    assert float(term.detach()) == 7.0
    term.backward()
    assert x.grad is not None and x.grad.tolist() == gradient
    assert float(loss.metrics["metric"].value()) == pytest.approx(7 / sum(gradient))
    assert float(objective.units(batch)["loss"]) == sum(gradient)


@pytest.mark.parametrize("bad", BAD)
def test_a_mean_leaves_out_what_has_weight_0(bad: float) -> None:
    mean = Mean.of(torch.tensor([3.0, bad, 8.0]), WEIGHT)
    assert (float(mean.total), float(mean.weight)) == (7.0, 1.5)


@pytest.mark.parametrize("bad", BAD)
def test_a_sum_over_an_answer_leaves_out_what_is_masked_and_so_does_its_gradient(bad: float) -> None:
    x = torch.tensor([bad, 1.0, 2.0, bad, 4.0, bad, bad, 8.0], requires_grad=True)
    summed = three_texts().sum_by_sequence(x)
    assert summed.tolist() == [3.0, 4.0, 8.0]
    summed.square().sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 6.0, 6.0, 0.0, 8.0, 0.0, 0.0, 16.0]
    assert three_texts().mean_by_sequence(x.detach()).tolist() == [1.5, 4.0, 8.0]


def test_token_means_and_sequence_means_differ_as_they_should() -> None:
    batch = TokenBatch.of([[0, 1, 1, 1], [0, 1]], [[False, True, True, True], [False, True]])
    nll = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 5.0])
    by_token, by_sequence = given(tokens), given(sequences)
    token_loss = by_token(TokenStats({"logp": nll}), batch).mean(by_token.units(batch))
    summed = TokenStats({"logp": batch.sum_by_sequence(nll)})
    sequence_loss = by_sequence(summed, batch).mean(by_sequence.units(batch))
    assert (float(token_loss), float(sequence_loss)) == (2.0, 4.0)  # 8 / 4 tokens, (3 + 5) / 2 sequences


def test_two_terms_have_denominators_of_their_own() -> None:
    """ORPO's shape: a mean over the chosen answers' tokens, and one over pairs."""

    class Two(Objective[PreferenceBatch]):
        """Means over chosen tokens and over pairs."""

        VERSION: ClassVar[str] = "1"
        per = {"nll": chosen_tokens, "odds": pairs}

        def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
            summed = batch.sum_by_sequence(stats.logp)
            return self.loss(batch, nll=-stats.logp, odds=batch.chosen(summed) - batch.rejected(summed))

    batch = PreferenceBatch.of([[0, 1, 1], [0, 1], [0, 1], [0, 1]], [[True] * 3, [True] * 2, [True] * 2, [True] * 2])
    logp = torch.tensor([9.0, -1.0, -2.0, 9.0, -5.0, 9.0, -6.0, 9.0, -7.0])
    assert {k: float(v) for k, v in Two().units(batch).items()} == {"nll": 3.0, "odds": 2.0}
    loss = Two()(TokenStats({"logp": logp}), batch).mean(Two().units(batch))
    assert float(loss) == pytest.approx((1 + 2 + 6) / 3 + ((-3 + 5) + (-6 + 7)) / 2)


def test_what_a_loss_is_a_mean_over_follows_from_its_batch_where_it_does_not_say() -> None:
    class Plain(Objective[PreferenceBatch]):
        """Mean over pairs."""

        VERSION: ClassVar[str] = "1"

        def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
            return self.loss(batch, loss=stats.logp)

    assert Plain.per == {"loss": units} and Plain().takes is PreferenceBatch


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss": torch.tensor(1.0)},
            r"Given: term 'loss' must be one value per element, \(3,\), got \(\); return ",
        ),
        ({"loss": torch.zeros(6)}, r"Given: term 'loss' must be one value per element, \(3,\), got \(6,\)"),
        ({"other": torch.zeros(3)}, r"Given: loss\(\) got the terms \['other'\], and `per` states \['loss'\]"),
    ],
)
def test_sums_wrong_shapes_and_unknown_terms_are_refused(values: Mapping[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given(pairs).loss(three_pairs(), **values)
    with pytest.raises(ValueError, match="metric 'margin' must be one value per token, sequence or unit, got shape"):
        given(pairs).loss(three_pairs(), loss=torch.zeros(3), metrics={"margin": torch.zeros(4)})


def test_an_objective_that_returns_a_tensor_is_named() -> None:
    class Bare(Objective[TokenBatch]):
        """Mean over tokens."""

        VERSION: ClassVar[str] = "1"

        def __call__(self, stats: TokenStats, batch: TokenBatch) -> Any:
            return stats.logp.mean()

    batch = three_texts()
    stats = TokenStats({"logp": torch.zeros(8, requires_grad=True)})
    with pytest.raises(ValueError, match=r"Bare: its call must return self.loss\(batch, ...\), got Tensor"):
        backward(Bare(), whole_step(Bare(), batch, lambda _: stats, 100), lambda _: stats)


@dataclass(frozen=True)
class Centred(Objective[TokenBatch]):
    """Mean over sequences of the squared distance to the step's mean log-probability."""

    VERSION: ClassVar[str] = "1"
    per = {"loss": sequences}
    shift: float = 0.0

    def step_means(self, stats: TokenStats, batch: TokenBatch) -> dict[str, Mean]:
        return {"centre": Mean.of(batch.sum_by_sequence(stats.logp), batch.weight)}

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=(batch.sum_by_sequence(stats.logp) - batch.step["centre"] - self.shift).square())


def step_of(objective: Objective[Any], batch: TokenBatch, logp: Tensor, max_tokens: int) -> tuple[float, Tensor]:
    """Loss and gradient of one optimizer step, cut into micro-batches of so many tokens."""
    leaf = logp.clone().requires_grad_()
    whole = batch.with_tokens(now=leaf)
    step = whole_step(objective, whole, _now, max_tokens)
    loss, _ = backward(objective, step, _now, lambda scalar: scalar.backward(retain_graph=True))
    assert leaf.grad is not None
    return float(loss.value()), leaf.grad


def _now(batch: Batch) -> TokenStats:
    return TokenStats({"logp": batch.token("now")})


@pytest.mark.parametrize("max_tokens", [1, 100])
def test_step_means_are_of_the_whole_step_and_constant(max_tokens: int) -> None:
    """Sums 1, 3 and 8, all of weight 1: mean 4, distances 9, 1 and 16, gradient 2 * distance / 3."""
    batch = replace(three_texts(), weight=torch.ones(3))
    logp = torch.tensor([0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 8.0])
    loss, gradient = step_of(Centred(), batch, logp, max_tokens)
    assert loss == pytest.approx(26 / 3)
    assert gradient.tolist() == pytest.approx([0, -2, -2, 0, -2 / 3, 0, 0, 8 / 3])


@pytest.mark.parametrize("max_tokens", [1, 100])
def test_a_weighted_sum_keeps_denominators_constants_and_names_apart(max_tokens: int) -> None:
    batch = replace(three_texts(), weight=torch.ones(3))
    logp = torch.tensor([0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 8.0])
    both = WeightedSum({"a": Centred(), "b": Centred(1.0), "c": given(tokens)}, {"b": 0.5, "c": -1.0})
    assert both.takes is TokenBatch and both.has_step_means
    assert sorted(both.units(batch)) == ["a/loss", "b/loss", "c/loss"]
    loss, _ = step_of(both, batch, logp, max_tokens)
    assert loss == pytest.approx(26 / 3 + 0.5 * (16 + 4 + 9) / 3 - 12 / 4)
    assert not WeightedSum({"c": given(tokens)}).has_step_means


def test_what_cannot_be_added_up_is_refused() -> None:
    with pytest.raises(ValueError, match="objectives is empty"):
        WeightedSum({})
    with pytest.raises(ValueError, match="weights name b; objectives are a"):
        WeightedSum({"a": Centred()}, {"b": 1.0})

    class Pairs(Objective[PreferenceBatch]):
        """Mean over pairs."""

        VERSION: ClassVar[str] = "1"

        def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
            raise NotImplementedError

    with pytest.raises(ValueError, match="its objectives take TokenBatch, PreferenceBatch"):
        WeightedSum({"a": Centred(), "b": Pairs()})


def test_a_wrapped_objective_is_the_same_but_for_what_it_overrides() -> None:
    class Doubled(Wrapped[TokenBatch]):
        """Twice the wrapped loss."""

        VERSION: ClassVar[str] = "1"

        def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
            loss = self.objective(stats, batch)
            return replace(loss, terms={name: 2 * term for name, term in loss.terms.items()})

    batch = replace(three_texts(), weight=torch.ones(3))
    logp = torch.tensor([0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 8.0])
    doubled = Doubled(Centred())
    assert doubled.takes is TokenBatch and doubled.per == Centred.per and doubled.has_step_means
    assert step_of(doubled, batch, logp, 1)[0] == pytest.approx(2 * 26 / 3)
