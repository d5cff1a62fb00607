"""DPO on labels that are not certain, against its closed forms."""

import math
from typing import Any

import pytest
from alignlab_dpo import DPO, ConservativeDPO, RobustDPO, SoftLabelDPO
from worked_pairs import CHOSEN, REJECTED, cost, flat, pair, slopes

from alignlab.optimum import NoneKnown, Tilted
from alignlab.testing import Check, conforms_objective


def dpo(scaled: float) -> float:
    """DPO's loss of `beta * margin`."""
    return math.log(1 + math.exp(-scaled))


@pytest.mark.parametrize("label", [0.9, 0.6])
def test_smoothed_and_soft_labels_are_a_cross_entropy(label: float) -> None:
    """The margin is 2 nats."""
    wanted = label * dpo(0.6) + (1 - label) * dpo(-0.6)
    smoothed, metrics = cost(ConservativeDPO(beta=0.3, label_smoothing=1 - label), pair())
    soft, same = cost(SoftLabelDPO(beta=0.3), pair(probability=label))
    assert float(smoothed) == pytest.approx(wanted, abs=1e-12) and float(soft) == pytest.approx(wanted, abs=1e-7)
    assert metrics == same == {"margin": 2.0, "accuracy": 1.0, "chosen_log_ratio": 1.0, "rejected_log_ratio": -1.0}


def test_a_smoothed_label_is_content_with_a_finite_margin() -> None:
    """2 nats at beta = log(9) / 2 are the probability 0.9."""
    assert slopes(ConservativeDPO(beta=math.log(9) / 2), pair()) == pytest.approx([0.0] * 5, abs=1e-15)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.45])
def test_flipped_labels_cost_on_average_what_true_ones_do(rate: float) -> None:
    """The rejected answer called the better one is the same pair turned round: a margin of -2 nats."""
    batch, turned = pair(), flat([x - 2 for x in CHOSEN], [x + 2 for x in REJECTED])
    turned[1:3] += 1  # log-ratios -1 and 1
    kept, other = (float(cost(RobustDPO(beta=0.3, flip_rate=rate), batch, logp)[0]) for logp in (None, turned))
    assert cost(DPO(), batch, turned)[1]["margin"] == -2.0
    assert kept == pytest.approx(((1 - rate) * dpo(0.6) - rate * dpo(-0.6)) / (1 - 2 * rate), abs=1e-12)
    assert (1 - rate) * kept + rate * other == pytest.approx(dpo(0.6), abs=1e-12)


def test_where_they_end() -> None:
    assert isinstance(ConservativeDPO().optimum(), NoneKnown)
    assert ConservativeDPO(beta=0.2, label_smoothing=0.0).optimum() == SoftLabelDPO(beta=0.2).optimum() == Tilted(0.2)
    assert RobustDPO(beta=0.2, flip_rate=0.3).optimum() == Tilted(0.2, flips=0.3)


@pytest.mark.parametrize(
    ("kind", "argument", "value", "rule"),
    [
        (ConservativeDPO, "beta", 0.0, "> 0"),
        (RobustDPO, "beta", -1.0, "> 0"),
        (SoftLabelDPO, "beta", 0.0, "> 0"),
        (ConservativeDPO, "label_smoothing", 0.5, "0 to below 0.5"),
        (RobustDPO, "flip_rate", -0.1, "0 to below 0.5"),
    ],
)
def test_arguments_that_cannot_work_are_refused(kind: Any, argument: str, value: float, rule: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: {argument} must be {rule}, got {value}"):
        kind(**{argument: value})


@conforms_objective(lambda: ConservativeDPO(beta=0.3, label_smoothing=0.2))
def test_cdpo_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: RobustDPO(beta=0.3, flip_rate=0.3))
def test_rdpo_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: SoftLabelDPO(beta=0.3))
def test_soft_dpo_conforms(check: Check) -> None:
    check()
