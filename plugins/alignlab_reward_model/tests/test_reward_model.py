"""The Bradley-Terry loss against its closed form, and what it converges to."""

import math

import pytest
import torch
from alignlab_reward_model import BradleyTerry

from alignlab.batch import PreferenceBatch
from alignlab.stats import TokenStats


def pairs(count: int, weight: torch.Tensor | None = None) -> PreferenceBatch:
    batch = PreferenceBatch.of([[1, 2]] * 2 * count, [[False, True]] * 2 * count)
    if weight is None:
        return batch
    from dataclasses import replace

    return replace(batch, weight=weight)


def test_equal_scores_cost_log_two_and_are_right_half_the_time() -> None:
    objective = BradleyTerry()
    loss = objective(TokenStats({"score": torch.zeros(4)}), pairs(2))
    assert float(loss.mean(objective.units(pairs(2)))) == pytest.approx(math.log(2))
    assert float(loss.metrics["accuracy"].value()) == 0.5


def test_a_margin_costs_its_log_sigmoid() -> None:
    objective = BradleyTerry(centering=0.1)
    loss = objective(TokenStats({"score": torch.tensor([2.0, -1.0])}), pairs(1))
    expected = math.log(1 + math.exp(-3)) + 0.1 * 1**2
    assert float(loss.mean(objective.units(pairs(1)))) == pytest.approx(expected)
    assert float(loss.metrics["margin"].value()) == 3.0


def test_exact_preferences_give_back_the_utilities_up_to_a_constant() -> None:
    """All ordered pairs of five answers, weighted by their true probability: the optimum is the utility."""
    utility = torch.tensor([0.0, 1.5, -0.7, 0.3, 2.0], dtype=torch.float64)
    first, second = torch.combinations(torch.arange(5)).unbind(1)
    first, second = torch.cat([first, second]), torch.cat([second, first])
    batch = pairs(len(first), torch.sigmoid(utility[first] - utility[second]))
    score = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    objective = BradleyTerry()
    optimizer = torch.optim.LBFGS(
        [score], max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        both = torch.stack([score[first], score[second]], 1).flatten()
        loss = objective(TokenStats({"score": both}), batch).mean(objective.units(batch))
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    found = score.detach() - score.detach().mean()
    assert float((found - (utility - utility.mean())).abs().max()) < 1e-6
