"""The KL to the reference as a part: each estimator by hand, its gradient against the enumerated KL, and the sums."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from alignlab_grpo import DAPO, GRPO, GroupRelative, KLInReward, KLToReference, LeaveOneOut, Reinforce
from rollouts_by_hand import OLD, answers, cost
from torch import Tensor

from alignlab.batch import RolloutBatch
from alignlab.objective import WeightedSum
from alignlab.optimum import Credit, NoneKnown, PolicyGradient, Stationary, combined
from alignlab.stats import TokenStats

MOVED = [0.5, 0.0, -1.0, 2.0]
"""log pi - log pi_ref of each response token."""
REFERENCE = [x - d for x, d in zip(OLD, MOVED, strict=True)]
K3 = [math.exp(-d) - 1 + d for d in MOVED]


@pytest.mark.parametrize(
    ("estimator", "values", "slopes"),
    [
        ("k1", MOVED, [1.0] * 4),
        ("k2", [d * d / 2 for d in MOVED], MOVED),
        ("k3", K3, [1 - math.exp(-d) for d in MOVED]),
        ("unbiased", K3, MOVED),
    ],
)
@pytest.mark.parametrize(
    ("over", "weights"),
    [("answer_sum", [1 / 2] * 4), ("answer_mean", [1 / 6] * 3 + [1 / 2]), ("token_mean", [1 / 4] * 4)],
)
def test_each_estimator_by_hand(
    estimator: Any, values: list[float], slopes: list[float], over: Any, weights: list[float]
) -> None:
    loss, slope, metrics = cost(KLToReference(estimator, over), answers([0.0] * 4, OLD, REFERENCE), OLD)
    assert loss == pytest.approx(sum(v * w for v, w in zip(values, weights, strict=True)), abs=1e-14)
    assert slope == pytest.approx([s * w for s, w in zip(slopes, weights, strict=True)], abs=1e-14)
    assert metrics["kl"] == pytest.approx((sum(values[:3]) / 3 + values[3]) / 2, abs=1e-14)


def test_it_reads_the_sampling_policy_only_where_a_ratio_is_needed() -> None:
    assert KLToReference("unbiased").reads == {"old_logp", "reference_logp"}
    assert KLToReference("k3").reads == {"reference_logp"}


# ---- gradients over three tokens -------------------------------------------------------------------------------------
LOGITS, FROZEN, SAMPLED = (torch.tensor(x).double() for x in ([1.0, -1.0, 0.0], [-0.5, 0.5, 1.0], [0.0, 1.0, -1.0]))
"""Of one next token, under the policy, the reference and the policy that sampled."""


def gradients(estimator: Any, on_policy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of the expected estimate, of KL(pi || ref) and of KL(ref || pi), by the logits of one next token."""
    reference, old = FROZEN.log_softmax(0), (LOGITS if on_policy else SAMPLED).log_softmax(0)

    def spread(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x), x], 1).flatten()

    batch = RolloutBatch.of([[1, 2]] * 3, [[False, True]] * 3)
    batch = replace(batch, weight=old.exp()).with_tokens(old_logp=spread(old), reference_logp=spread(reference))
    leaf = LOGITS.clone().requires_grad_()
    logp, objective = leaf.log_softmax(0), KLToReference(estimator)
    loss = objective(TokenStats({"logp": spread(logp)}), batch).mean(objective.units(batch))
    forward, backward = (logp.exp() * (logp - reference)).sum(), (reference.exp() * (reference - logp)).sum()
    found = [torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (loss, forward, backward)]
    return found[0], found[1], found[2]


def test_on_policy_k1_has_no_gradient_k2_that_of_the_kl_and_k3_that_of_the_other_kl() -> None:
    k1, forward, backward = gradients("k1", True)
    assert float(k1.abs().max()) < 1e-15
    torch.testing.assert_close(gradients("k2", True)[0], forward)
    torch.testing.assert_close(gradients("k3", True)[0], backward)
    torch.testing.assert_close(gradients("unbiased", True)[0], forward)
    assert float((forward - backward).abs().max()) > 0.01


def test_off_policy_only_the_unbiased_estimate_has_the_gradient_of_the_kl() -> None:
    found, forward, backward = gradients("unbiased", False)
    torch.testing.assert_close(found, forward)
    for estimator in ("k1", "k2", "k3"):
        other = gradients(estimator, False)[0]
        assert min(float((other - x).abs().max()) for x in (forward, backward)) > 0.01


# ---- sums ------------------------------------------------------------------------------------------------------------
def with_kl(policy: Any, estimator: Any = "k3", over: Any = "answer_mean", weight: float = 0.3) -> WeightedSum[Any]:
    return WeightedSum({"policy": policy, "kl": KLToReference(estimator, over)}, {"kl": weight})


def test_grpo_is_its_parts_added_up() -> None:
    batch, now = answers([2.0, 2.0, 2.0, -1.0], OLD, REFERENCE), [x + 0.1 for x in OLD]
    whole, slope, _ = cost(GRPO(beta=0.3), batch, now)
    parts = cost(with_kl(GRPO(beta=0.0)), batch, now)
    assert whole == pytest.approx(parts[0], abs=1e-14) and slope == pytest.approx(parts[1], abs=1e-14)
    assert with_kl(GRPO(beta=0.0)).optimum() == GRPO(beta=0.3).optimum()


def test_a_sum_declares_what_its_parts_come_to() -> None:
    credit = LeaveOneOut(beta=0.0, missing_eos_penalty=0.0).optimum()
    total = with_kl(Reinforce(), "unbiased", "answer_sum").optimum()
    assert total == PolicyGradient("answer_sum", beta=0.3, estimator="k2")
    assert combined(total, credit) == Stationary(0.3, "k2", False, "reward")
    half = WeightedSum({"policy": Reinforce(), "kl": KLToReference("k2", "answer_sum")}, {"policy": 0.5, "kl": 0.3})
    assert isinstance(end := half.optimum(), PolicyGradient) and combined(end, credit) == Stationary(
        0.6, "k2", False, "reward"
    )
    nothing = with_kl(Reinforce(), "k1", "answer_sum").optimum()
    assert nothing == PolicyGradient("answer_sum")


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (with_kl(DAPO(), "k2", "answer_sum"), "means over different things: answer_sum, token_mean"),
        (with_kl(GRPO(), "k2", "answer_mean"), "several estimators of the KL: k2, k3"),
        (with_kl(GRPO(beta=0.0), "k1", "answer_mean"), "k1 makes answers longer or shorter"),
    ],
)
def test_a_sum_that_has_no_known_end_says_why(objective: Any, reason: str) -> None:
    found = objective.optimum()
    assert isinstance(found, NoneKnown) and reason in found.reason


@pytest.mark.parametrize(
    ("gradient", "credit", "reason"),
    [
        (PolicyGradient("answer_sum", beta=0.1), Credit("reward", beta=0.2), "paid twice"),
        (PolicyGradient("answer_sum", credit=-1.0), Credit("reward", beta=0.2), "wrong side of 0"),
        (PolicyGradient("token_mean"), Credit("standardised", beta=0.2), "no end was found"),
        (PolicyGradient("answer_mean"), Credit("to_go", beta=0.2, whitened=True), "does not cancel"),
        (PolicyGradient("token_mean", beta=0.1), Credit("reward", whitened=True), "whitening divides"),
    ],
)
def test_what_has_no_known_end_says_why(gradient: PolicyGradient, credit: Credit, reason: str) -> None:
    found = combined(gradient, credit)
    assert isinstance(found, NoneKnown) and reason in found.reason


# ---- in the reward ---------------------------------------------------------------------------------------------------
def sampled() -> RolloutBatch:
    """Two answers of one group: rewards 1 and 3, k1 summing to -0.5 and 2, the second never stopped."""
    batch = answers([0.0] * 4, OLD, REFERENCE)
    return batch.with_sequences(
        reward=torch.tensor([1.0, 3.0], dtype=torch.float64),
        finished=torch.tensor([1.0, 0.0], dtype=torch.float64),
        group=torch.tensor([0, 0]),
    )


def test_the_kl_is_taken_off_the_reward_of_any_advantage() -> None:
    """Paid 1 + 0.5 * 0.5 = 1.25 and 3 - 0.5 * 2 - 0.7 = 1.3: half of the difference is 0.025."""
    rollouts = sampled()
    found = KLInReward(GroupRelative(scale=False), beta=0.5, missing_eos_penalty=0.7)(rollouts)
    assert found.advantage[found.response_mask].tolist() == pytest.approx([-0.025] * 3 + [0.025], abs=1e-14)
    assert torch.equal(found.sequence("reward"), rollouts.sequence("reward"))


def test_prices_of_an_advantage_and_around_it_add_up() -> None:
    one = LeaveOneOut(beta=0.5, missing_eos_penalty=0.7)
    two = KLInReward(LeaveOneOut(beta=0.2, missing_eos_penalty=0.0), beta=0.3, missing_eos_penalty=0.7)
    mask = sampled().response_mask
    torch.testing.assert_close(one(sampled()).advantage[mask], two(sampled()).advantage[mask])
    assert two.optimum() == one.optimum() == Credit("reward", 0.5, 0.7)
    assert two.reads == {"reward", "finished", "group", "old_logp", "reference_logp"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KLInReward(GroupRelative(), beta=-1.0), r"KLInReward: beta must be >= 0, got -1\.0; it is a price"),
        (lambda: KLInReward(GroupRelative(), missing_eos_penalty=-1.0), "KLInReward: missing_eos_penalty must be >= 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
