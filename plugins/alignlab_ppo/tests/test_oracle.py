"""PPO against closed forms in the enumerable world of `alignlab.testing.oracle`, part by part.

`tests/test_oracle.py` trains it to its end, `pi* ~ pi_ref * exp(reward / beta)`. Here: what its gradient is, that pi*
is where nothing is left to learn, and that with a wrong credit something is.
"""

from dataclasses import replace

import pytest
import torch
from alignlab_ppo import GAE, PPO
from mistaken_credit import Mistaken, mistakes
from torch import Tensor

from alignlab import Advantage, RolloutBatch
from alignlab.optimum import Tilted
from alignlab.optimum.tables import kl
from alignlab.testing.oracle import World
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.testing.oracle.solve import gradient, natural_gradient

BETA = 0.5
WORLD = World(prompts=3)
RIGHT = GAE(beta=BETA, lam=1.0, missing_eos_penalty=0.0, whiten=False)
PI_STAR = Tilted(BETA).policy(WORLD.tables)


def slope(objective: PPO, rollouts: RolloutBatch, policy: TablePolicy) -> Tensor:
    """Gradient of the policy's term by the logits: a sum over prompts."""
    gradient(objective, rollouts, policy)
    assert policy.logits.grad is not None
    return policy.logits.grad * rollouts.weight_by_token().sum()


def left_to_learn(advantage: Advantage) -> float:
    """The largest natural gradient at pi*."""
    return float(natural_gradient(OnPolicy(WORLD, PPO(), advantage), WORLD.logits_of(PI_STAR)).abs().max())


@pytest.mark.parametrize("lam", [1.0, 0.5, 0.3])
def test_at_pi_star_nothing_is_left_to_learn(lam: float) -> None:
    """There every advantage is zero, token by token, whatever lambda is."""
    advantage = replace(RIGHT, lam=lam)
    rollouts = OnPolicy(WORLD, PPO(), advantage).rollouts(TablePolicy(WORLD, WORLD.logits_of(PI_STAR)))
    assert float(rollouts.advantage.abs().max()) < 1e-12
    assert left_to_learn(advantage) < 1e-12


MISTAKES: dict[str, Advantage] = {
    "discount .9": replace(RIGHT, gamma=0.9),
    "reward lost": Mistaken(RIGHT, lambda b: b.with_sequences(reward=0 * b.sequence("reward"))),
    "beta twice": replace(RIGHT, beta=2 * BETA),
    "penalty not in the optimum": replace(RIGHT, missing_eos_penalty=1.0),
    **mistakes(RIGHT),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_with_a_wrong_credit_pi_star_is_left(name: str) -> None:
    assert left_to_learn(MISTAKES[name]) > 0.02


def test_several_clipped_epochs_on_one_buffer_end_at_pi_star() -> None:
    """Natural gradient steps on PPO's own gradient, four to a buffer: the clip and the ratio take part."""
    logits, method = WORLD.reference, OnPolicy(WORLD, PPO(), RIGHT)
    for _ in range(15):
        buffer = method.rollouts(TablePolicy(WORLD, logits))
        visits = method.visits(buffer)[..., None] * buffer.weight.sum()
        for _ in range(4):
            found = slope(PPO(), buffer, TablePolicy(WORLD, logits))
            logits = logits - 0.2 / BETA * found / (visits * logits.softmax(-1))
    assert float(kl(WORLD.tables.reference, PI_STAR).min()) > 0.1
    assert float(kl(WORLD.of_answers(logits), PI_STAR).max()) < 1e-6


def test_the_gradient_at_ratio_one_is_the_policy_gradient() -> None:
    """d/dtheta of E[reward] - beta KL(pi || ref), enumerated and differentiated, KL and all; at a temperature."""
    policy = TablePolicy(WORLD, WORLD.teacher)
    method = OnPolicy(WORLD, PPO(), RIGHT, alter=lambda b: _tempered(b, 0.6))
    rollouts = method.rollouts(policy)
    rollouts = replace(rollouts, weight=rollouts.sum_by_sequence(rollouts.old_logp).exp())
    found = slope(PPO(), rollouts, policy)

    theta = WORLD.teacher.clone().requires_grad_()
    logp, reference = WORLD.of_answers(theta / 0.6), WORLD.of_answers(WORLD.reference / 0.6)
    (expected,) = torch.autograd.grad((logp.exp() * (WORLD.reward - BETA * (logp - reference))).sum(), theta)
    assert float((found + expected).abs().max()) < 1e-10
    assert float(expected.abs().max()) > 0.01


def _tempered(batch: RolloutBatch, temperature: float) -> RolloutBatch:
    hot = replace(batch, temperature=temperature)
    reference = TablePolicy(WORLD).token_stats(hot, frozenset({"logp"})).logp.detach()
    return hot.with_tokens(reference_logp=reference)


def test_k1_in_the_reward_has_the_mean_and_the_gradient_of_the_enumerated_kl() -> None:
    policy = TablePolicy(WORLD, WORLD.teacher)
    method = OnPolicy(
        WORLD, PPO(), replace(RIGHT, beta=1.0), alter=lambda b: b.with_sequences(reward=0 * b.sequence("reward"))
    )
    free = method.rollouts(policy)
    found = slope(PPO(), free, policy)

    theta = WORLD.teacher.clone().requires_grad_()
    logp = WORLD.of_answers(theta)
    whole = (logp.exp() * (logp - WORLD.tables.reference)).sum()
    (expected,) = torch.autograd.grad(whole, theta)
    k1 = free.sum_by_sequence(free.old_logp - free.reference_logp)
    assert float((free.weight * k1).sum()) == pytest.approx(float(whole.detach()))
    assert float((found - expected).abs().max()) < 1e-10


def test_the_value_term_alone_finds_the_exact_critic() -> None:
    objective, policy = PPO(value_coefficient=0.1, value_clip=0.2), TablePolicy(WORLD)
    method = OnPolicy(WORLD, objective, replace(RIGHT, whiten=True))
    values = torch.zeros_like(policy.values)
    for _ in range(40):
        with torch.no_grad():
            policy.values.copy_(values)
        rollouts = method.rollouts(policy)
        rollouts = rollouts.with_tokens(old_value=rollouts.scored(values.flatten()[rollouts.token("state")]))
        gradient(objective, rollouts, policy)
        assert policy.values.grad is not None
        share = method.visits(rollouts) * rollouts.weight.sum() / rollouts.weight_by_token().sum()
        values = values - 0.9 * policy.values.grad / (0.1 * share)
    exact = WORLD.values(WORLD.tables.reference, WORLD.reward, BETA)
    assert torch.allclose(values, exact, atol=1e-9)
