"""Length-normalised DPO and WPO against their closed forms."""

import math
from typing import Any

import pytest
from alignlab_dpo import WPO, LengthNormalizedDPO
from worked_pairs import cost, pair, slopes

from alignlab.optimum import LengthTilted, Tilted
from alignlab.testing import Check, conforms_objective


def test_log_ratios_are_means_over_tokens() -> None:
    """0.5 nats per token against -1."""
    found, metrics = cost(LengthNormalizedDPO(beta=2.0), pair())
    assert float(found) == pytest.approx(math.log(1 + math.exp(-3.0)), abs=1e-14)
    assert metrics == {"margin": 1.5, "accuracy": 1.0, "chosen_log_ratio": 0.5, "rejected_log_ratio": -1.0}
    slope = 2.0 / (1 + math.exp(3.0))
    assert slopes(LengthNormalizedDPO(beta=2.0), pair()) == pytest.approx([0, -slope / 2, -slope / 2, 0, slope])


def test_a_pair_counts_by_how_likely_its_answers_are_without_gradient() -> None:
    """-1.5 nats per token of the chosen answer, -5 of the rejected one."""
    weight = math.exp(-6.5)
    found, metrics = cost(WPO(beta=0.3), pair())
    assert float(found) == pytest.approx(weight * math.log(1 + math.exp(-0.6)), abs=1e-16)
    assert metrics["weight"] == pytest.approx(weight, abs=1e-16) and metrics["margin"] == 2.0
    slope = weight * 0.3 / (1 + math.exp(0.6))
    assert slopes(WPO(beta=0.3), pair()) == pytest.approx([0, -slope, -slope, 0, slope], abs=1e-16)


def test_where_they_end() -> None:
    assert LengthNormalizedDPO(beta=3.0).optimum() == LengthTilted(3.0, from_reference=True)
    assert WPO(beta=0.2).optimum() == Tilted(0.2)


@pytest.mark.parametrize("kind", [LengthNormalizedDPO, WPO])
def test_beta_must_be_positive(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: beta must be > 0, got 0.0"):
        kind(beta=0.0)


@conforms_objective(lambda: LengthNormalizedDPO(beta=2.0))
def test_length_normalized_dpo_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: WPO(beta=0.3))
def test_wpo_conforms(check: Check) -> None:
    check()
