"""Reward-model objectives with margins, with ties and on ratings, against closed forms; and the conformance kit."""

import math
from dataclasses import replace

import pytest
import torch
from alignlab_reward_model import BradleyTerry, MarginBradleyTerry, ScoreRegression, TiesBradleyTerry

from alignlab import Objective, PreferenceBatch, TokenBatch, TokenStats
from alignlab.objective import davidson_loss
from alignlab.optimum import NoneKnown, RewardItself
from alignlab.testing import Check, conforms_objective, tiny_policy


def cost(objective: Objective[PreferenceBatch], scores: list[float], **extras: list[float]) -> float:
    """Mean over pairs, of scores chosen and rejected in turn."""
    batch = PreferenceBatch.of([[1, 2]] * len(scores), [[False, True]] * len(scores))
    batch = batch.with_units(**{name: torch.tensor(values) for name, values in extras.items()})
    loss = objective(TokenStats({"score": torch.tensor(scores, dtype=torch.float64)}), batch)
    return float(loss.mean(objective.units(batch)))


# ---- margins ---------------------------------------------------------------------------------------------------------
def test_a_margin_is_taken_off_the_gap() -> None:
    """A gap of 3 less 0.5 * 2 is worth log(1 + exp(-2)); an equal gap without a margin log(1 + exp(-3))."""
    found = cost(MarginBradleyTerry(scale=0.5), [2.0, -1.0, 3.0, 0.0], margin=[2.0, 0.0])
    assert found == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-3))) / 2)


def test_without_a_scale_it_is_bradley_terry() -> None:
    scores = [0.3, -1.0, 2.0, 2.5]
    assert cost(MarginBradleyTerry(scale=0.0), scores, margin=[1.0, 7.0]) == pytest.approx(cost(BradleyTerry(), scores))
    assert MarginBradleyTerry(scale=0.0).optimum() == RewardItself()
    assert isinstance(MarginBradleyTerry().optimum(), NoneKnown)


def test_signed_margins_of_the_utility_add_themselves_to_it() -> None:
    """Two answers 1 apart, chosen by Bradley-Terry, each pair with its signed margin: the best gap is 1 + scale."""
    share, scale = 1 / (1 + math.exp(-1.0)), 0.7
    gap = torch.tensor(1 + scale, dtype=torch.float64, requires_grad=True)
    batch = PreferenceBatch.of([[1, 2]] * 4, [[False, True]] * 4).with_units(margin=torch.tensor([1.0, -1.0]))
    batch = replace(batch, weight=torch.tensor([share, 1 - share], dtype=torch.float64))
    objective, zero = MarginBradleyTerry(scale), torch.zeros((), dtype=torch.float64)
    loss = objective(TokenStats({"score": torch.stack([gap, zero, zero, gap])}), batch)
    (slope,) = torch.autograd.grad(loss.mean(objective.units(batch)), gap)
    assert abs(float(slope)) < 1e-8


# ---- ties ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gap", "nu", "chosen", "tied"),
    [(0.0, 1.0, 1 / 4, 1 / 2), (0.0, 0.5, 1 / 3, 1 / 3), (math.log(4), 1.0, 2 / 4.5, 2 / 4.5)],
)
def test_probabilities_of_a_choice_and_of_a_tie(gap: float, nu: float, chosen: float, tied: float) -> None:
    """A gap of log 4 has the odds 2 : 1/2 : 2 nu for chosen, rejected and tied."""
    assert cost(TiesBradleyTerry(nu), [gap, 0.0], tie=[0.0]) == pytest.approx(-math.log(chosen))
    assert cost(TiesBradleyTerry(nu), [gap, 0.0], tie=[1.0]) == pytest.approx(-math.log(tied))
    assert cost(TiesBradleyTerry(nu), [0.0, gap], tie=[1.0]) == pytest.approx(-math.log(tied))


def test_the_three_outcomes_of_a_pair_add_up_to_one_however_far_apart() -> None:
    gap, one = torch.linspace(-60, 60, 13, dtype=torch.float64), torch.ones(13, dtype=torch.float64)
    losses = [davidson_loss(gap, 0 * one, 0.3), davidson_loss(-gap, 0 * one, 0.3), davidson_loss(gap, one, 0.3)]
    torch.testing.assert_close(sum((-loss).exp() for loss in losses), one)
    assert bool(davidson_loss(torch.tensor([1e4, -1e4]), torch.zeros(2), 0.3).isfinite().all())


def test_as_ties_get_rare_it_is_bradley_terry() -> None:
    scores = [0.3, -1.0, 2.0, 2.5]
    assert cost(TiesBradleyTerry(1e-9), scores, tie=[0.0, 0.0]) == pytest.approx(cost(BradleyTerry(), scores))


# ---- ratings ---------------------------------------------------------------------------------------------------------
def test_ratings_are_squared_errors_of_answers_and_fix_the_constant() -> None:
    batch = TokenBatch.of([[1, 2, 3], [1, 2]], [[False, True, True], [False, True]])
    batch = batch.with_units(ratings=torch.tensor([[4.0], [1.0]]))
    objective = ScoreRegression()
    loss = objective(TokenStats({"scores": torch.tensor([[3.0], [3.0]])}), batch)
    assert float(loss.mean(objective.units(batch))) == pytest.approx((1 + 4) / 2)
    assert float(loss.metrics["error"].value()) == pytest.approx((-1 + 2) / 2)
    assert float(loss.metrics["absolute_error"].value()) == pytest.approx((1 + 2) / 2)


def test_an_attribute_that_an_answer_was_not_rated_by_teaches_nothing() -> None:
    """Errors of -1, 2 and 2 over three ratings: the mean is 3, and 2 * error / 3 reaches each score that was rated."""
    batch = TokenBatch.of([[1, 2]] * 2, [[False, True]] * 2)
    batch = batch.with_units(ratings=torch.tensor([[4.0, 1.0], [math.nan, 1.0]]))
    scores = torch.full((2, 2), 3.0, requires_grad=True)
    objective = ScoreRegression()
    found = objective(TokenStats({"scores": scores}), batch)
    loss = found.mean(objective.units(batch))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(3.0)
    torch.testing.assert_close(scores.grad, torch.tensor([[-2 / 3, 4 / 3], [0.0, 4 / 3]]))
    assert float(found.metrics["absolute_error"].value()) == pytest.approx(5 / 3)


@pytest.mark.parametrize("attribute", [0, 1])
def test_a_rating_reaches_the_head_of_its_attribute_alone(attribute: int) -> None:
    policy = tiny_policy(1)
    policy.add_score_head(2, ("good", "brief"))
    assert policy.score_head is not None
    wanted = torch.full((3, 2), math.nan)
    wanted[:, attribute] = 7.0
    batch = TokenBatch.of([[1, 5, 6], [1, 7], [1, 8, 9, 5]], [[False, True, True], [False, True], [False] + [True] * 3])
    batch, objective = batch.with_units(ratings=wanted), ScoreRegression()
    stats = policy.token_stats(batch, objective.needs)
    objective(stats, batch).mean(objective.units(batch)).backward()
    gradient = policy.score_head.weight.grad
    assert gradient is not None and bool(gradient[attribute].any()) and not bool(gradient[1 - attribute].any())


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="MarginBradleyTerry: scale must be >= 0, got -1"):
        MarginBradleyTerry(scale=-1)
    with pytest.raises(ValueError, match="TiesBradleyTerry: nu must be > 0, got 0"):
        TiesBradleyTerry(nu=0)


# ---- conformance -----------------------------------------------------------------------------------------------------
@conforms_objective(lambda: MarginBradleyTerry(scale=0.8))
def test_margins_conform(check: Check) -> None:
    check()


@conforms_objective(lambda: TiesBradleyTerry(nu=0.6))
def test_ties_conform(check: Check) -> None:
    check()


@conforms_objective(ScoreRegression)
def test_ratings_conform(check: Check) -> None:
    check()
