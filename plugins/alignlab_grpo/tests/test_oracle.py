"""REINFORCE with leave-one-out credit, and GRPO, against closed forms in the enumerable world, part by part.

`tests/test_oracle.py` trains them to their ends. Here: what their gradients are, that pi* ~ pi_ref exp(reward / beta)
is where nothing is left to learn by RLOO, that with another credit something is, and that GRPO's end is another.
"""

from dataclasses import replace

import pytest
import torch
from alignlab_grpo import GRPO, GroupRelative, LeaveOneOut, Reinforce
from mistaken_credit import mistakes
from torch import Tensor

from alignlab import Advantage, RolloutBatch
from alignlab.optimum import Tilted
from alignlab.stats import TokenStats
from alignlab.testing.oracle import World
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.testing.oracle.solve import gradient, natural_gradient

BETA = 0.5
WORLD = World(prompts=2)
RIGHT = LeaveOneOut(beta=BETA, missing_eos_penalty=0.0)
PI_STAR = Tilted(BETA).policy(WORLD.tables)


# ---- REINFORCE, leave one out ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_expected_gradient_is_the_policy_gradient_of_reward_less_beta_kl(temperature: float) -> None:
    """Every pair of answers by its probability; against the enumerated objective, differentiated with its KL."""

    def tempered(batch: RolloutBatch) -> RolloutBatch:
        hot = replace(batch, temperature=temperature)
        reference = TablePolicy(WORLD).token_stats(hot, frozenset({"logp"})).logp.detach()
        return hot.with_tokens(reference_logp=reference)

    policy = TablePolicy(WORLD, WORLD.teacher)
    credit = LeaveOneOut(beta=BETA, missing_eos_penalty=0.7)
    rollouts = OnPolicy(WORLD, Reinforce(), credit, alter=tempered).rollouts(policy)
    drawn = rollouts.sum_by_sequence(rollouts.old_logp).view(-1, 2).sum(1, keepdim=True).exp()
    rollouts = replace(rollouts, weight=drawn.expand(-1, 2).flatten())
    gradient(Reinforce(), rollouts, policy)
    assert policy.logits.grad is not None

    theta = WORLD.teacher.clone().requires_grad_()
    logp, reference = WORLD.of_answers(theta / temperature), WORLD.of_answers(WORLD.reference / temperature)
    reward = WORLD.tables.penalised(0.7).reward
    (expected,) = torch.autograd.grad((logp.exp() * (reward - BETA * (logp - reference))).sum(), theta)
    assert float((policy.logits.grad * WORLD.prompts + expected).abs().max()) < 1e-12
    assert float(expected.abs().max()) > 0.01


OTHERS: dict[str, Advantage] = {
    **mistakes(RIGHT),
    "beta twice": replace(RIGHT, beta=2 * BETA),
    "penalty not in the optimum": replace(RIGHT, missing_eos_penalty=1.0),
    "divided by the deviation": GroupRelative(eps=0.0),
}


def left_to_learn(advantage: Advantage) -> float:
    """The largest natural gradient at pi*."""
    return float(natural_gradient(OnPolicy(WORLD, Reinforce(), advantage), WORLD.logits_of(PI_STAR)).abs().max())


def test_at_pi_star_nothing_is_left_to_learn() -> None:
    assert left_to_learn(RIGHT) < 1e-12


@pytest.mark.parametrize("name", OTHERS)
def test_with_another_credit_pi_star_is_left(name: str) -> None:
    assert left_to_learn(OTHERS[name]) > 0.02


# ---- GRPO -----------------------------------------------------------------------------------------------------------
def centred(rollouts: RolloutBatch) -> RolloutBatch:
    """The reward less a constant: any baseline leaves the expectation alone."""
    reward = rollouts.sequence("reward") - 0.3
    return rollouts.with_tokens(advantage=rollouts.scored(reward[rollouts.sequence_id]))


def slope(logits: Tensor, reference: Tensor, reward: Tensor) -> Tensor:
    """GRPO's gradient by the logits of answers of one token, each by its probability."""

    def spread(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x), x], 1).flatten()

    objective, leaf = GRPO(beta=BETA), logits.detach().requires_grad_()
    logp = leaf.log_softmax(0)
    batch = RolloutBatch.of([[1, 2]] * len(reward), [[False, True]] * len(reward)).with_sequences(reward=reward)
    rollouts = replace(batch, weight=logp.detach().exp())
    rollouts = centred(rollouts.with_tokens(old_logp=spread(logp.detach()), reference_logp=spread(reference)))
    loss = objective(TokenStats({"logp": spread(logp)}), rollouts)
    return torch.autograd.grad(loss.mean(objective.units(rollouts)), leaf)[0]


REWARD = torch.tensor([0.0, 1.5, -0.7, 0.3, 1.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, -0.4, 0.8, 0.0, -1.0], dtype=torch.float64).log_softmax(0)
"""Of five answers of one token each."""


def test_grpos_gradient_is_that_of_reward_less_beta_times_the_kl_from_the_reference() -> None:
    """On answers of one token, where the mean over tokens is the sum: k3 as a loss pulls like KL(reference || policy).

    Its expectation is the other divergence, KL(policy || reference): value and gradient are not of one thing.
    """
    logits = torch.tensor([0.6, -1.1, 0.2, 0.9, -0.3], dtype=torch.float64)
    found, theta = slope(logits, REFERENCE, REWARD), logits.clone().requires_grad_()
    logp = theta.log_softmax(0)
    forward = BETA * (REFERENCE.exp() * (REFERENCE - logp)).sum()
    backward = BETA * (logp.exp() * (logp - REFERENCE)).sum()
    mean = (logp.exp() * REWARD).sum()
    expected, reverse = (torch.autograd.grad(mean - x, theta, retain_graph=True)[0] for x in (forward, backward))
    assert float((found + expected).abs().max()) < 1e-12
    assert float((found + reverse).abs().max()) > 0.01


def optimum(reward: Tensor, reference: Tensor) -> Tensor:
    """pi = beta pi_ref / (lambda - reward), lambda by bisection so that it adds up to 1."""
    low, high = reward.max() + 1e-12, reward.max() + BETA
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (BETA * reference / (middle - reward)).sum() > 1 else (low, middle)
    return BETA * reference / (low - reward)


def test_grpos_fixed_point_over_whole_answers_is_its_own_not_pi_star() -> None:
    """Five one-token answers, exactly weighted: pi = beta pi_ref / (lambda - reward)."""
    logits = REFERENCE.clone()
    for _ in range(80):
        logits = logits - 4 * slope(logits, REFERENCE, REWARD)
    found = logits.softmax(0)
    assert float((found - optimum(REWARD, REFERENCE.exp())).abs().max()) < 1e-6
    assert float((found - (REFERENCE + REWARD / BETA).softmax(0)).abs().max()) > 0.05
