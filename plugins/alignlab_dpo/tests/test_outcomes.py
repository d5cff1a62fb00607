"""DPO with ties, and on rankings, against their closed forms."""

import itertools
import math
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO, DavidsonDPO, PlackettLuce
from worked_pairs import cost, flat, pair, slopes

from alignlab.batch import PreferenceBatch
from alignlab.objective import WeightedSum
from alignlab.optimum import Tilted
from alignlab.testing import Check, conforms_objective, ranked_lists


# ---- ties ------------------------------------------------------------------------------------------------------------
def test_win_loss_and_tie_have_davidsons_odds() -> None:
    """The margin is 2 nats, so d is 1: exp(0.5) : exp(-0.5) : 2 nu."""
    odds = {"win": math.exp(0.5), "loss": math.exp(-0.5), "tie": 0.8}
    objective = DavidsonDPO(beta=0.5, nu=0.4)
    won, tied = (float(cost(objective, pair(tie=tie))[0]) for tie in (0.0, 1.0))
    assert won == pytest.approx(-math.log(odds["win"] / sum(odds.values())), abs=1e-14)
    assert tied == pytest.approx(-math.log(odds["tie"] / sum(odds.values())), abs=1e-14)


@pytest.mark.parametrize("nu", [0.25, 1.0])
def test_equal_answers_tie_as_readily_as_it_says(nu: float) -> None:
    tied, _ = cost(DavidsonDPO(nu=nu), pair(tie=1.0), flat([-1.5, -2.5], [-4.0]))
    assert math.exp(-float(tied)) == pytest.approx(nu / (1 + nu), abs=1e-14)


def test_a_tie_pulls_the_margin_back() -> None:
    """d = 1: the expected half margin is `(exp(0.5) - exp(-0.5)) / (2 total)`, in units of beta."""
    odds = [math.exp(0.5), math.exp(-0.5), 2.0]
    slope = 0.5 / 2 * (odds[0] - odds[1]) / sum(odds)
    assert slopes(DavidsonDPO(beta=0.5), pair(tie=1.0)) == pytest.approx([0, slope, slope, 0, -slope], abs=1e-14)


def test_without_ties_it_is_dpo() -> None:
    assert slopes(DavidsonDPO(nu=1e-12), pair(tie=0.0)) == pytest.approx(slopes(DPO(), pair()), abs=1e-12)


# ---- rankings --------------------------------------------------------------------------------------------------------
def ranking(*log_ratios: float) -> tuple[PreferenceBatch, torch.Tensor]:
    """A list of answers of one token, and log-probabilities with the given log-ratios."""
    count = len(log_ratios)
    batch = PreferenceBatch.of([[1, 2]] * count, [[False, True]] * count, unit=[0] * count)
    batch = batch.with_tokens(reference_logp=flat(*[[-3.0]] * count))
    return batch, flat(*[[x - 3.0] for x in log_ratios])


def test_the_best_is_chosen_from_all_and_the_next_from_those_that_are_left() -> None:
    """Log-ratios 1, 0 and -1 at beta = 0.5."""
    e, f = math.exp(0.5), math.exp(-0.5)
    found, metrics = cost(PlackettLuce(beta=0.5), *ranking(1.0, 0.0, -1.0))
    assert float(found) == pytest.approx(-math.log(e / (e + 1 + f)) - math.log(1 / (1 + f)), abs=1e-14)
    assert metrics == {"margin": 2.0, "accuracy": 1.0}


def test_the_orders_of_three_answers_have_probabilities() -> None:
    orders = itertools.permutations([1.3, -0.2, -4.0])
    assert sum(math.exp(-float(cost(PlackettLuce(beta=0.5), *ranking(*x))[0])) for x in orders) == pytest.approx(1.0)


def test_on_pairs_it_is_dpo() -> None:
    found, metrics = cost(PlackettLuce(beta=0.3), pair())
    expected, same = cost(DPO(beta=0.3), pair())
    assert float(found) == pytest.approx(float(expected), abs=1e-15)
    assert metrics == {name: same[name] for name in ("margin", "accuracy")}
    assert slopes(PlackettLuce(beta=0.3), pair()) == pytest.approx(slopes(DPO(beta=0.3), pair()), abs=1e-15)


def test_lists_of_several_lengths_cost_what_each_costs() -> None:
    gains = [[1.0, 0.0, -1.0], [0.3, 0.6], [0.0, 2.0, 1.0, -1.0]]
    unit = [u for u, gain in enumerate(gains) for _ in gain]
    flattened = [x for gain in gains for x in gain]
    batch, logp = ranking(*flattened)
    lists = PreferenceBatch.of([[1, 2]] * len(unit), [[False, True]] * len(unit), unit=unit)
    lists = lists.with_tokens(reference_logp=batch.reference_logp)
    alone = [float(cost(PlackettLuce(), *ranking(*gain))[0]) for gain in gains]
    found, metrics = cost(PlackettLuce(), lists, logp)
    assert float(found) == pytest.approx(sum(alone) / 3, abs=1e-14)
    assert metrics == pytest.approx({"margin": (2.0 - 0.3 + 1.0) / 3, "accuracy": 2 / 3})


def test_it_combines_with_others() -> None:
    both = WeightedSum({"a": PlackettLuce(), "b": DPO()})
    assert float(cost(both, pair())[0]) == pytest.approx(2 * float(cost(DPO(), pair())[0]))


# ---- both ------------------------------------------------------------------------------------------------------------
def test_where_they_end() -> None:
    assert DavidsonDPO(beta=0.2, nu=0.5).optimum() == Tilted(0.2, ties=0.5)
    assert PlackettLuce(beta=0.2).optimum() == Tilted(0.2, ranked=3)


@pytest.mark.parametrize(("kind", "argument"), [(DavidsonDPO, "beta"), (DavidsonDPO, "nu"), (PlackettLuce, "beta")])
def test_arguments_must_be_positive(kind: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: {argument} must be > 0, got 0.0"):
        kind(**{argument: 0.0})


@conforms_objective(lambda: DavidsonDPO(beta=0.3, nu=0.5))
def test_davidson_dpo_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: PlackettLuce(beta=0.3))
def test_plackett_luce_conforms_on_pairs(check: Check) -> None:
    check()


@conforms_objective(lambda: PlackettLuce(beta=0.3), batch=ranked_lists)
def test_plackett_luce_conforms_on_lists(check: Check) -> None:
    check()
