"""KTO's loss by hand, its baseline over the whole step, and where it leads on a world of five answers."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from alignlab_kto import KTO
from torch import Tensor

from alignlab.batch import LabelledBatch
from alignlab.stats import TokenStats
from alignlab.training.step import backward, step_constants, whole_step

NAN = float("nan")
# Three answers, each followed by the same prompt with another's answer. Summed over response tokens, they are 0.7, -0.5
# and 2.0 nats likelier than under the reference; the mismatched ones 1.2, -0.3 and 0.3, with a mean of 0.4.
ROWS = [[1, 2, 3], [1, 6], [1, 4], [1, 2, 3], [1, 9, 5, 6], [1, 9, 4]]
MASKS = [[0, 1, 1], [0, 1], [0, 1], [0, 1, 1], [0, 0, 1, 1], [0, 0, 1]]
MOVED = [[NAN, 0.2, 0.5], [NAN, 1.2], [NAN, -0.5], [NAN, -0.1, -0.2], [NAN, NAN, 3.0, -1.0], [NAN, NAN, 0.3]]
RATIO, MISMATCHED, GOOD = [0.7, -0.5, 2.0], [1.2, -0.3, 0.3], [1.0, 0.0, 1.0]
ZERO = torch.zeros((), dtype=torch.float64)
LOGP = torch.tensor([-1.0 - 0.1 * (t % 7) for t in range(17)], dtype=torch.float64)


def answers() -> LabelledBatch:
    """The three answers; whatever is not scored is NaN."""
    batch = LabelledBatch.of(ROWS, [[bool(m) for m in mask] for mask in MASKS], unit=[0, 0, 1, 1, 2, 2])
    moved = torch.tensor([x for row in MOVED for x in row], dtype=torch.float64)
    return batch.with_tokens(reference_logp=LOGP - moved).with_units(desirable=torch.tensor(GOOD))


def statistics(leaf: Tensor) -> Callable[[LabelledBatch], TokenStats]:
    """Log-probabilities of the tokens of a part, which carries their places in the whole batch."""
    return lambda part: TokenStats({"logp": leaf[part.token("place")]})


def placed(batch: LabelledBatch) -> LabelledBatch:
    return batch.with_tokens(place=torch.arange(batch.num_tokens))


def loss(objective: KTO, batch: LabelledBatch, baseline: float) -> tuple[float, dict[str, float]]:
    trained = placed(batch).trained().with_constants({"baseline": torch.tensor(baseline, dtype=torch.float64)})
    found = objective(statistics(LOGP)(trained), trained)
    metrics = {k: float(m.value()) for k, m in found.metrics.items()}
    return float(found.mean(objective.units(trained))), metrics


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(baseline: float, beta: float, good: float, bad: float, weight: tuple[float, ...] = (1, 1, 1)) -> float:
    parts = [
        w * (good * (1 - sigmoid(beta * (r - baseline))) if g else bad * (1 - sigmoid(beta * (baseline - r))))
        for r, g, w in zip(RATIO, GOOD, weight, strict=True)
    ]
    return sum(parts) / sum(weight)


# ---- the loss -------------------------------------------------------------------------------------------------------
def test_three_answers_by_hand() -> None:
    found, metrics = loss(KTO(beta=0.3, desirable_weight=1.1, undesirable_weight=0.7), answers(), 0.4)
    assert found == pytest.approx(by_hand(0.4, 0.3, 1.1, 0.7), abs=1e-14)
    assert metrics == pytest.approx(
        {"desirable_log_ratio": (0.7 + 2.0) / 2, "undesirable_log_ratio": -0.5, "baseline": 0.4}, abs=1e-14
    )


def test_units_of_a_batch_weigh_as_they_say() -> None:
    weight = (0.5, 2.0, 0.0)
    batch = replace(answers(), weight=torch.tensor(weight))
    found, metrics = loss(KTO(beta=0.3), batch, 0.4)
    assert found == pytest.approx(by_hand(0.4, 0.3, 1.0, 1.0, weight), abs=1e-14)
    assert metrics["desirable_log_ratio"] == pytest.approx(0.7)


def test_the_baseline_is_the_mean_of_the_mismatched_answers() -> None:
    batch = placed(answers())
    found = step_constants(KTO(), [batch], statistics(LOGP))
    assert float(found["baseline"]) == pytest.approx(sum(MISMATCHED) / 3, abs=1e-14)
    heavy = replace(batch, weight=torch.tensor([3.0, 1.0, 0.0]))
    found = step_constants(KTO(), [heavy], statistics(LOGP))
    assert float(found["baseline"]) == pytest.approx((3 * 1.2 - 0.3) / 4, abs=1e-14)


def test_the_baseline_is_cut_at_zero_after_the_mean_is_taken() -> None:
    found, metrics = loss(KTO(beta=0.3), answers(), -0.2)
    assert found == pytest.approx(by_hand(0.0, 0.3, 1.0, 1.0), abs=1e-14)
    assert metrics["baseline"] == 0.0
    # Cut one by one, 1.2, -0.3 and 0.3 would have the mean 0.5 and not 0.4.
    assert float(step_constants(KTO(), [placed(answers())], statistics(LOGP))["baseline"]) == pytest.approx(0.4)


def test_a_policy_that_is_its_reference_costs_half_of_each_weight() -> None:
    batch = answers()
    same = batch.with_tokens(reference_logp=torch.where(batch.response_mask, LOGP, NAN))
    found, metrics = loss(KTO(beta=0.3, desirable_weight=1.1, undesirable_weight=0.7), same, 0.0)
    assert found == pytest.approx((1.1 + 0.7 + 1.1) / 2 / 3, abs=1e-14)
    assert metrics == {"desirable_log_ratio": 0.0, "undesirable_log_ratio": 0.0, "baseline": 0.0}


# ---- one optimizer step ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("budget", [1, 6, 11, 1000])
def test_the_baseline_is_that_of_the_whole_step_whatever_the_micro_batches(budget: int) -> None:
    objective, leaf = KTO(beta=0.3), LOGP.clone().requires_grad_()
    step = whole_step(objective, placed(answers()), statistics(leaf), budget)
    assert len(step.parts) == {1: 3, 6: 3, 11: 2, 1000: 1}[budget]
    assert all(float(part.step["baseline"]) == pytest.approx(0.4, abs=1e-14) for part in step.parts)
    found, metrics = backward(objective, step, statistics(leaf))
    assert float(found.value()) == pytest.approx(by_hand(0.4, 0.3, 1.0, 1.0), abs=1e-14)
    assert float(metrics["baseline"].value()) == pytest.approx(0.4, abs=1e-14)
    assert leaf.grad is not None
    assert leaf.grad.tolist() == pytest.approx(gradient_by_hand(0.4, 0.3), abs=1e-14)


def gradient_by_hand(baseline: float, beta: float) -> list[float]:
    """At every response token of an answer the slope of its loss; 0 elsewhere, at mismatched answers too."""
    slope = [
        (-1 if good else 1) * beta * sigmoid(beta * (r - baseline)) * sigmoid(beta * (baseline - r)) / 3
        for r, good in zip(RATIO, GOOD, strict=True)
    ]
    return [slope[s // 2] if scored and s % 2 == 0 else 0.0 for s, mask in enumerate(MASKS) for scored in mask]


def test_mismatched_answers_are_not_trained_on() -> None:
    step = whole_step(KTO(), placed(answers()), statistics(LOGP), 1000)
    (part,) = step.parts
    assert part.num_sequences == part.num_units == 3
    assert part.tokens.tolist() == [*ROWS[0], *ROWS[2], *ROWS[4]]


# ---- where it leads, on five one-token answers, exactly weighted ----------------------------------------------------
REFERENCE = torch.tensor([0.1, -0.4, 0.8, 0.0, -1.0], dtype=torch.float64).log_softmax(0)
LIKED = torch.tensor([0.9, 0.6, 0.5, 0.3, 0.05], dtype=torch.float64)  # probability of being called good


def five(liked: Tensor) -> LabelledBatch:
    """Each answer called good and bad, with the probabilities of both, drawn from the reference."""
    batch = LabelledBatch.of([[1, 2]] * 10, [[False, True]] * 10)
    weight = (REFERENCE.exp() * torch.stack([liked, 1 - liked])).flatten()
    batch = replace(batch, weight=weight).with_tokens(reference_logp=spread(REFERENCE))
    return batch.with_units(desirable=torch.arange(10) < 5).with_constants({"baseline": ZERO})


def slope(objective: KTO, logits: Tensor, batch: LabelledBatch) -> Tensor:
    """Gradient of the expected loss by the logits."""
    logits = logits.detach().requires_grad_()
    loss = objective(TokenStats({"logp": spread(logits.log_softmax(0))}), batch)
    (gradient,) = torch.autograd.grad(loss.mean(objective.units(batch)), logits)
    return gradient


def spread(logp: Tensor) -> Tensor:
    """Of the five answers, twice, each after a prompt token."""
    twice = torch.cat([logp, logp])
    return torch.stack([torch.zeros_like(twice), twice], 1).flatten()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.4)])
def test_at_the_reference_the_gradient_is_the_policy_gradient_of_the_signed_label(weights: tuple[float, float]) -> None:
    """A first step is one of REINFORCE by `w_good P(good) - w_bad P(bad)`, times beta / 4."""
    good, bad = weights
    found = slope(KTO(0.3, good, bad), REFERENCE, five(LIKED))
    logits = REFERENCE.clone().requires_grad_()
    signed = good * LIKED - bad * (1 - LIKED)
    (expected,) = torch.autograd.grad((logits.softmax(0) * signed).sum(), logits)
    assert torch.allclose(found, -0.3 / 4 * expected, atol=1e-15)
    assert float(expected.abs().max()) > 0.05


def test_it_follows_the_majority_of_labels_not_their_odds() -> None:
    """Unlike DPO it does not end at a tilted reference: answers that are mostly called bad lose without end."""
    beta, batch, logits = 1.0, five(LIKED), REFERENCE.clone()
    for _ in range(80):
        logp = logits.log_softmax(0)
        kl = (logp.exp() * (logp - REFERENCE)).sum()
        logits = logits - 60 * slope(KTO(beta), logits, batch.with_constants({"baseline": kl}))
    found = logits.log_softmax(0)
    tilted = (REFERENCE + (LIKED / (1 - LIKED)).log() / beta).log_softmax(0)
    assert float((found - REFERENCE)[3:].max()) < -2 and float(found[0]) > float(REFERENCE[0])
    assert float((found.exp() * (found - tilted)).sum()) > 0.05


@pytest.mark.parametrize("weights", [(1.0, 0.5), (0.5, 1.0)])
def test_where_labels_say_nothing_the_policy_stays(weights: tuple[float, float]) -> None:
    """Every answer liked alike: the reference is a fixed point, whichever side weighs more."""
    alike = slope(KTO(0.3, *weights), REFERENCE, five(torch.full_like(LIKED, 0.7)))
    assert float(alike.abs().max()) < 1e-15


# ---- what it refuses ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, r"KTO: beta must be > 0, got 0\.0; it scales the log-ratio"),
        ({"desirable_weight": -1.0}, r"KTO: desirable_weight must be >= 0, got -1\.0"),
        ({"undesirable_weight": -0.5}, r"KTO: undesirable_weight must be >= 0, got -0\.5"),
        ({"desirable_weight": 0.0, "undesirable_weight": 0.0}, "KTO: desirable_weight and undesirable_weight are both"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KTO(**arguments)
