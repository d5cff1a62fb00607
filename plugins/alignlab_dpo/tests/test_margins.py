"""The hinge and APO-zero against their closed forms."""

import math
from typing import Any

import pytest
from alignlab_dpo import APOZero, SLiC
from worked_pairs import cost, flat, pair, slopes

from alignlab.testing import Check, conforms_objective


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("margin", "wanted"), [(0.0, 1.0), (4.0, 0.6), (10.0, 0.0), (25.0, 0.0), (-10.0, 2.0)])
def test_a_pair_costs_what_its_margin_lacks_of_ten_nats(margin: float, wanted: float) -> None:
    found, metrics = cost(SLiC(beta=0.1), pair(), flat([-2.0, -2.0], [-4.0 - margin]))
    assert float(found) == pytest.approx(wanted, abs=1e-14) and metrics["margin"] == margin


def test_apo_zero_takes_each_answer_by_itself() -> None:
    """Log-ratios 1 and -1: the slopes are those of two sigmoids."""
    found, _ = cost(APOZero(beta=0.3), pair())
    assert float(found) == pytest.approx(1 - sigmoid(0.3) + sigmoid(-0.3), abs=1e-14)
    slope = 0.3 * sigmoid(0.3) * sigmoid(-0.3)
    assert slopes(APOZero(beta=0.3), pair()) == pytest.approx([0, -slope, -slope, 0, slope], abs=1e-14)


def test_apo_zero_minds_where_both_fall_and_the_hinge_does_not() -> None:
    logp, lower = flat([-1.0, -2.0], [-5.0]), flat([-3.0, -4.0], [-9.0])  # both log-ratios 4 nats lower
    assert float(cost(SLiC(), pair(), logp)[0]) == float(cost(SLiC(), pair(), lower)[0])
    before, after = (cost(APOZero(beta=0.3), pair(), x)[0] for x in (logp, lower))
    assert float(after) == pytest.approx(1 - sigmoid(-0.9) + sigmoid(-1.5), abs=1e-14) and after > before


@pytest.mark.parametrize("kind", [SLiC, APOZero])
def test_beta_must_be_positive(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: beta must be > 0, got 0.0"):
        kind(beta=0.0)


@conforms_objective(lambda: SLiC(beta=0.1))
def test_slic_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: APOZero(beta=0.3))
def test_apo_zero_conforms(check: Check) -> None:
    check()
