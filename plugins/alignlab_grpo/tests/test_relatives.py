"""GRPO's relatives by hand: two clip sides, whole answers, cut weights, and what each is a mean over."""

import math
from typing import Any

import pytest
import torch
from alignlab_grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO, Reinforce
from alignlab_ppo import PPO
from rollouts_by_hand import OLD, answers, cost, filled

from alignlab.objective import clipped_surrogate
from alignlab.stats import TokenStats

ADVANTAGE = [2.0, 2.0, 2.0, -1.0]
WEIGHTS: dict[str, tuple[Any, list[float]]] = {
    "grpo": (GRPO(), [1 / 6] * 3 + [1 / 2]),
    "dr_grpo": (DrGRPO(length=8.0), [1 / 16] * 4),
    "dapo": (DAPO(), [1 / 4] * 4),
    "gspo": (GSPO(), [1 / 6] * 3 + [1 / 2]),
    "cispo": (CISPO(), [1 / 4] * 4),
    "reinforce": (Reinforce(), [1 / 2] * 4),
}
"""How much each token of an answer of three and of one of a single token counts, worked out on paper."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_on_policy_each_is_the_policy_gradient_with_its_own_weights(name: str) -> None:
    objective, weights = WEIGHTS[name]
    _, slope, metrics = cost(objective, answers(ADVANTAGE, OLD), OLD)
    assert slope == pytest.approx([-a * w for a, w in zip(ADVANTAGE, weights, strict=True)], abs=1e-14)
    assert metrics.get("ratio", 1.0) == 1.0
    assert all(metrics.get(k, 0.0) == 0.0 for k in ("clip_fraction", "cut_fraction"))


@pytest.mark.parametrize(
    ("advantage", "ratio", "wanted", "clipped"),
    [
        (2.0, 1.25, -2.5, 0.0),  # within the wider side
        (2.0, 1.5, -2.56, 1.0),  # at 1.28
        (2.0, 0.5, -1.0, 0.0),  # the wrong way is never clipped
        (-2.0, 0.9, 1.8, 0.0),
        (-2.0, 0.5, 1.6, 1.0),  # at 0.8
        (-2.0, 1.5, 3.0, 0.0),
    ],
)
def test_the_surrogate_by_the_table(advantage: float, ratio: float, wanted: float, clipped: float) -> None:
    one, other = (torch.tensor([x], dtype=torch.float64) for x in (ratio, advantage))
    found = clipped_surrogate(one, other, 0.2, 0.28)
    assert [float(x) for x in found] == pytest.approx([wanted, clipped], abs=1e-14)
    batch = answers([advantage] * 4, OLD)
    loss, _, metrics = cost(DAPO(), batch, [x + math.log(ratio) for x in OLD])
    assert (loss, metrics["clip_fraction"]) == pytest.approx((wanted, clipped), abs=1e-14)


def test_dapo_with_equal_sides_is_the_policy_term_of_ppo() -> None:
    batch, now = answers(ADVANTAGE, OLD), [x + d for x, d in zip(OLD, (0.3, -0.3, 0.1, 0.4), strict=True)]
    zero = filled([0.0] * 4)
    rest = batch.with_tokens(old_value=zero, returns=zero)
    stats = TokenStats({"logp": filled(now), "value": zero, "entropy": zero})
    assert float(PPO()(stats, rest).terms["policy"]) / 4 == cost(DAPO(clip_high=0.2), batch, now)[0]


def test_dr_grpo_divides_sums_by_its_constant() -> None:
    """Ratio 1.1 in the answer of three tokens, 1.5 in the other, whose advantage is negative: never clipped."""
    now = [x + math.log(r) for x, r in zip(OLD, (1.1, 1.1, 1.1, 1.5), strict=True)]
    loss, slope, metrics = cost(DrGRPO(length=10.0), answers(ADVANTAGE, OLD), now)
    assert loss == pytest.approx((-6.6 + 1.5) / 10 / 2, abs=1e-14)
    assert slope == pytest.approx([-2.2 / 20] * 3 + [1.5 / 20], abs=1e-14)
    assert metrics == pytest.approx({"ratio": 1.3, "clip_fraction": 0.0})


def test_gspo_has_one_ratio_for_an_answer_whatever_its_length() -> None:
    """Moved by 0.3, -0.1 and 0.1 nats, an answer has the ratio exp(0.1); the other has exp(-0.2)."""
    now = [x + d for x, d in zip(OLD, (0.3, -0.1, 0.1, -0.2), strict=True)]
    free = GSPO(clip_low=0.5, clip_high=0.5)
    loss, slope, metrics = cost(free, answers(ADVANTAGE, OLD), now)
    up, down = math.exp(0.1), math.exp(-0.2)
    assert loss == pytest.approx((-2 * up + down) / 2, abs=1e-14)
    assert slope == pytest.approx([-2 * up / 3 / 2] * 3 + [down / 2], abs=1e-14)
    assert metrics["ratio"] == pytest.approx((up + down) / 2)
    loss, slope, metrics = cost(GSPO(), answers(ADVANTAGE, OLD), now)
    assert loss == pytest.approx((-2 * 1.0004 + 0.9997) / 2, abs=1e-14) and slope == [0.0] * 4
    assert metrics["clip_fraction"] == 1.0


def test_cispo_cuts_the_weight_and_keeps_the_gradient() -> None:
    """Ratios 3, 1, 0.5 and 8 with a cap of 2: every token still has a gradient, on either side."""
    now = [x + math.log(r) for x, r in zip(OLD, (3.0, 1.0, 0.5, 8.0), strict=True)]
    loss, slope, metrics = cost(CISPO(cap=2.0), answers(ADVANTAGE, OLD), now)
    weights = (2.0, 1.0, 0.5, 2.0)
    by_hand = [-a * w / 4 for a, w in zip(ADVANTAGE, weights, strict=True)]
    assert slope == pytest.approx(by_hand, abs=1e-14)
    assert loss == pytest.approx(sum(s * x for s, x in zip(by_hand, now, strict=True)), abs=1e-14)
    assert metrics == pytest.approx({"ratio": 12.5 / 4, "cut_fraction": 0.5})


@pytest.mark.parametrize("objective", [o for o, _ in WEIGHTS.values() if not isinstance(o, Reinforce)])
def test_log_ratios_hundreds_of_nats_away_stay_finite_in_single_precision(objective: Any) -> None:
    batch = answers([1.0, 1.0, -1.0, -1.0], [0.0, -400.0, 0.0, -400.0])
    batch = batch.with_tokens(**{k: v.float() for k, v in batch.per_token.items()})
    leaf = filled([-400.0, 0.0, -400.0, 0.0]).float().requires_grad_()
    loss = objective(TokenStats({"logp": leaf}), batch).mean(objective.units(batch))
    loss.backward()
    assert leaf.grad is not None and math.isfinite(float(loss.detach()))
    assert bool(torch.isfinite(leaf.grad[batch.response_mask]).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DrGRPO(clip=0.0), r"DrGRPO: clip must be > 0, got 0\.0"),
        (lambda: DrGRPO(length=0.0), r"DrGRPO: length must be > 0, got 0\.0; sums over tokens are divided by it"),
        (lambda: DAPO(clip_low=-0.1), r"DAPO: clip_low must be > 0, got -0\.1"),
        (lambda: GSPO(clip_high=0.0), r"GSPO: clip_high must be > 0, got 0\.0"),
        (lambda: CISPO(cap=0.5), r"CISPO: cap must be >= 1, got 0\.5"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
