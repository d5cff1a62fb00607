"""The losses of GRPO and REINFORCE by hand: ratio, clip, k3, and what each is a mean over."""

import math
from dataclasses import replace

import pytest
import torch
from alignlab_grpo import GRPO, Reinforce
from rollouts_by_hand import NAN, OLD, answers, cost, filled

from alignlab.stats import TokenStats


# ---- GRPO -----------------------------------------------------------------------------------------------------------
def test_at_ratio_1_the_slope_is_minus_the_advantage_over_the_length() -> None:
    """Each answer counts once, whatever its length."""
    loss, slope, metrics = cost(GRPO(), answers([2.0, 2.0, 2.0, -1.0], OLD), OLD)
    assert loss == pytest.approx((-2.0 + 1.0) / 2, abs=1e-14)
    assert slope == pytest.approx([-2 / 3 / 2] * 3 + [1 / 2], abs=1e-14)
    assert metrics == {"ratio": 1.0, "clip_fraction": 0.0, "k3": 0.0}


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "moves"),
    [
        (2.0, 1.1, -2.2, True),
        (2.0, 1.5, -2.4, False),  # far enough the right way: clipped at 1.2
        (2.0, 0.5, -1.0, True),  # the wrong way is never clipped
        (-2.0, 0.9, 1.8, True),
        (-2.0, 0.5, 1.6, False),
        (-2.0, 1.5, 3.0, True),
    ],
)
def test_clip_table(advantage: float, ratio: float, loss: float, moves: bool) -> None:
    batch = answers([advantage] * 4, OLD)
    found, slope, metrics = cost(GRPO(clip=0.2, beta=0.0), batch, [x + math.log(ratio) for x in OLD])
    assert found == pytest.approx(loss, abs=1e-14)
    wanted = -advantage * ratio if moves else 0.0
    assert slope == pytest.approx([wanted / 3 / 2] * 3 + [wanted / 2], abs=1e-14)
    assert metrics["clip_fraction"] == (0.0 if moves else 1.0)
    assert metrics["ratio"] == pytest.approx(ratio)


def test_k3_by_hand() -> None:
    """d = reference - policy: 0.5, 0, -1 in the long answer, 2 in the short one."""
    batch = answers([0.0] * 4, OLD, [x + d for x, d in zip(OLD, (0.5, 0.0, -1.0, 2.0), strict=True)])
    k3 = [math.exp(d) - 1 - d for d in (0.5, 0.0, -1.0, 2.0)]
    loss, slope, metrics = cost(GRPO(beta=0.3), batch, OLD)
    assert loss == pytest.approx(0.3 * (sum(k3[:3]) / 3 + k3[3]) / 2, abs=1e-14)
    assert metrics["k3"] == pytest.approx((sum(k3[:3]) / 3 + k3[3]) / 2, abs=1e-14)
    by_hand = [0.3 * (1 - math.exp(d)) / n / 2 for d, n in ((0.5, 3), (0.0, 3), (-1.0, 3), (2.0, 1))]
    assert slope == pytest.approx(by_hand, abs=1e-14)
    assert cost(GRPO(beta=0.0), batch, OLD)[0] == 0.0


def test_answers_weigh_as_they_say() -> None:
    batch = replace(answers([2.0, 2.0, 2.0, -1.0], OLD), weight=torch.tensor([3.0, 1.0]))
    assert cost(GRPO(), batch, OLD)[0] == pytest.approx((3 * -2.0 + 1.0) / 4, abs=1e-14)
    assert cost(Reinforce(), batch, OLD)[0] == pytest.approx((3 * 7.0 - 1.5) / 4, abs=1e-14)


def test_log_ratios_hundreds_of_nats_away_stay_finite_in_single_precision() -> None:
    batch = answers([1.0, 1.0, -1.0, -1.0], [0.0, -400.0, 0.0, -400.0])
    batch = batch.with_tokens(**{k: v.float() for k, v in batch.per_token.items()})
    leaf = filled([-400.0, 0.0, -400.0, 0.0]).float().requires_grad_()
    loss = GRPO()(TokenStats({"logp": leaf}), batch).mean(GRPO().units(batch))
    loss.backward()
    assert leaf.grad is not None and math.isfinite(float(loss.detach()))
    assert bool(torch.isfinite(leaf.grad[batch.response_mask]).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"clip": 0.0}, r"GRPO: clip must be > 0, got 0\.0"), ({"beta": -0.1}, r"GRPO: beta must be >= 0, got -0\.1")],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRPO(**arguments)


# ---- REINFORCE ------------------------------------------------------------------------------------------------------
def test_reinforce_sums_over_an_answer_and_averages_over_answers() -> None:
    loss, slope, metrics = cost(Reinforce(), answers([2.0, 2.0, 2.0, -1.0], [NAN] * 4), OLD)
    assert loss == pytest.approx((2 * 3.5 - 1.5) / 2, abs=1e-14)
    assert slope == pytest.approx([-1.0, -1.0, -1.0, 0.5], abs=1e-14)
    assert metrics == {}
