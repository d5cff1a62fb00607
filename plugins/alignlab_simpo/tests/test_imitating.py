"""ORPO and CPO against their closed forms: two terms, each a mean of its own."""

import math
from typing import Any

import pytest
import torch
from alignlab_simpo import CPO, ORPO
from worked_pairs import cost, flat, pair

from alignlab.testing import Check, conforms_objective

HALF, FIFTH = math.log(0.5), math.log(0.2)
LOGP = [HALF, HALF], [FIFTH]
"""The chosen answer has two tokens of probability 1/2, the rejected one has one of 1/5."""


def test_orpo_compares_odds_per_token() -> None:
    """Odds 1 and 1/4: a log odds ratio of log 4, whose sigmoid is 4/5."""
    found, metrics = cost(ORPO(weight=0.3), pair(), flat(*LOGP))
    assert float(found) == pytest.approx(math.log(2) + 0.3 * math.log(1.25), abs=1e-14)
    assert metrics == pytest.approx({"margin": math.log(4), "accuracy": 1.0}, abs=1e-14)


def test_cpo_compares_whole_answers() -> None:
    """Probabilities 1/4 and 1/5: at beta = 2 the odds are 25 to 16."""
    found, metrics = cost(CPO(beta=2.0, weight=0.3), pair(), flat(*LOGP))
    assert float(found) == pytest.approx(math.log(1 + 16 / 25) + 0.3 * math.log(2), abs=1e-14)
    assert metrics == pytest.approx({"margin": math.log(1.25), "accuracy": 1.0}, abs=1e-14)


@pytest.mark.parametrize("objective", [ORPO(), CPO()], ids=["orpo", "cpo"])
def test_an_answer_that_is_certain_keeps_it_finite(objective: Any) -> None:
    logp = flat([0.0, 0.0], [FIFTH]).requires_grad_()
    loss, _ = cost(objective, pair(), logp)
    (slope,) = torch.autograd.grad(loss, logp)
    assert math.isfinite(float(loss.detach())) and bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("objective", [ORPO(), CPO()], ids=["orpo", "cpo"])
def test_no_reference_is_read(objective: Any) -> None:
    assert objective.reads == frozenset()


@pytest.mark.parametrize(("kind", "argument"), [(ORPO, "weight"), (CPO, "beta"), (CPO, "weight")])
def test_arguments_must_be_positive(kind: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: {argument} must be > 0, got 0.0"):
        kind(**{argument: 0.0})


@conforms_objective(lambda: ORPO(weight=0.3))
def test_orpo_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: CPO(beta=0.3, weight=0.5))
def test_cpo_conforms(check: Check) -> None:
    check()
