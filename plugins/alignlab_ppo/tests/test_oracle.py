"""PPO against the closed form: on an enumerable world its fixed point is `pi* ~ pi_ref * exp(reward / beta)`.

The world: vocabulary {a, b, EOS}, at most 3 tokens, 15 answers, 4 prompts, float64. A tabular policy has one row of
logits for every prefix. Every answer is there once, weighted by its exact probability, so that nothing is random.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from alignlab_ppo import GAE, PPO
from torch import Tensor

from alignlab.advantage import last_response_token
from alignlab.batch import RolloutBatch
from alignlab.stats import TokenStats

A, B, EOS, PROMPTS, BETA = 0, 1, 2, 4, 0.5
ANSWERS = [
    y
    for length in (1, 2, 3)
    for y in itertools.product((A, B, EOS), repeat=length)
    if EOS not in y[:-1] and (y[-1] == EOS or length == 3)
]
PREFIXES = [y for length in (0, 1, 2) for y in itertools.product((A, B), repeat=length)]


class World:
    """All answers to all prompts as one rollout batch; `state` numbers each token's (prompt, prefix)."""

    def __init__(self, temperature: float = 1.0) -> None:
        asked = [(p, y) for p in range(PROMPTS) for y in ANSWERS]
        rows = [[3 + p, *y] for p, y in asked]
        batch = RolloutBatch.of(rows, [[False] + [True] * (len(r) - 1) for r in rows])
        generator = torch.Generator().manual_seed(0)
        self.reward = torch.randn(len(rows), generator=generator, dtype=torch.float64)
        finished = torch.tensor([float(r[-1] == EOS) for r in rows])
        self.batch = replace(batch.with_sequences(reward=self.reward, finished=finished), temperature=temperature)
        # The prompt token has no state of its own; it is masked, so that 0 does as well as any.
        before = [[0, *(p * len(PREFIXES) + PREFIXES.index(y[:t]) for t in range(len(y)))] for p, y in asked]
        self.state = torch.tensor([s for row in before for s in row])
        self.reference = torch.randn(PROMPTS * len(PREFIXES), 3, generator=generator, dtype=torch.float64)

    def logp(self, logits: Tensor) -> Tensor:
        table = (logits / self.batch.temperature).log_softmax(-1)[self.state]
        action = self.batch.tokens.clamp_max(EOS)
        return table.gather(1, action[:, None])[:, 0] * self.batch.response_mask

    def log_probability(self, logits: Tensor) -> Tensor:
        """`(prompts, answers)`"""
        return self.batch.sum_by_sequence(self.logp(logits)).view(PROMPTS, -1)

    def optimum(self, penalty: float = 0.0) -> Tensor:
        """log pi*, `(prompts, answers)`"""
        reward = self.reward - penalty * (1 - self.batch.sequence("finished"))
        return (self.log_probability(self.reference) + reward.view(PROMPTS, -1) / BETA).log_softmax(-1)

    def kl_to_optimum(self, logits: Tensor, penalty: float = 0.0) -> float:
        now, best = self.log_probability(logits), self.optimum(penalty)
        return float((now.exp() * (now - best)).sum(-1).max())

    def by_state(self, x: Tensor) -> Tensor:
        """Sum of a per-token quantity over the response tokens of each state."""
        mask = self.batch.response_mask
        return x.new_zeros(self.reference.shape[0]).index_add(0, self.state[mask], x[mask])

    def value(self, logits: Tensor) -> Tensor:
        """The exact forecast at every state: mean over the answers through it of what is still to be paid."""
        paid = -BETA * (self.logp(logits) - self.logp(self.reference))
        paid = paid + self.reward[self.batch.sequence_id] * last_response_token(self.batch)
        before = paid.cumsum(0) - paid
        end = self.batch.sum_by_sequence(paid) + before[self.batch.last_tokens() - self.batch.lengths() + 1]
        to_go = end[self.batch.sequence_id] - before
        weight = self.log_probability(logits).exp().flatten()[self.batch.sequence_id]
        return self.by_state(weight * to_go) / self.by_state(weight)

    def rollouts(self, logits: Tensor, value: Tensor, gae: Callable[[RolloutBatch], RolloutBatch]) -> RolloutBatch:
        mask = self.batch.response_mask
        weighted = replace(self.batch, weight=self.log_probability(logits).exp().flatten())
        old, reference = self.logp(logits), self.logp(self.reference)
        return gae(weighted.with_tokens(old_logp=old, reference_logp=reference, old_value=value[self.state] * mask))


def step(world: World, logits: Tensor, value: Tensor, rollouts: RolloutBatch, objective: PPO) -> tuple[Tensor, Tensor]:
    """Gradients of the two terms by logits and by value; sums, not yet divided by their units."""
    logits, value = logits.clone().requires_grad_(), value.clone().requires_grad_()
    zero = torch.zeros_like(world.reward[world.batch.sequence_id])
    now = TokenStats({"logp": world.logp(logits), "value": value[world.state], "entropy": zero})
    loss = objective(now, rollouts)
    return torch.autograd.grad(sum(loss.terms.values()), (logits, value))


def solve(gae: Callable[[RolloutBatch], RolloutBatch], rounds: int = 12, epochs: int = 1) -> tuple[World, Tensor]:
    """Natural gradient on PPO's own gradient: for a table, Fisher is visits * probability, a division.

    With an exact critic a full step (1 / beta) is soft policy iteration, which converges in a few rounds.
    """
    world = World()
    logits = world.reference.clone()
    for _ in range(rounds):
        value = world.value(logits)
        rollouts = world.rollouts(logits, value, gae)
        visits = world.by_state(rollouts.weight_by_token())[:, None]
        for _ in range(epochs):
            gradient, _ = step(world, logits, value, rollouts, PPO())
            logits = logits - gradient / (visits * logits.softmax(-1)) * (1 if epochs == 1 else 0.2) / BETA
    return world, logits


@pytest.mark.parametrize("lam", [1.0, 0.5])
def test_fixed_point_is_pi_star(lam: float) -> None:
    world, logits = solve(GAE(beta=BETA, lam=lam, missing_eos_penalty=0.0, whiten=False))
    assert world.kl_to_optimum(world.reference) > 0.1
    assert world.kl_to_optimum(logits) < 1e-12


def test_fixed_point_is_pi_star_with_several_clipped_epochs_on_one_buffer() -> None:
    world, logits = solve(GAE(beta=BETA, lam=1.0, missing_eos_penalty=0.0, whiten=False), rounds=15, epochs=4)
    assert world.kl_to_optimum(logits) < 1e-6


def mutants() -> dict[str, Callable[[RolloutBatch], RolloutBatch]]:
    right = GAE(beta=BETA, missing_eos_penalty=0.0, whiten=False)

    def kl_skips_the_end(b: RolloutBatch) -> RolloutBatch:
        return right(b.with_tokens(reference_logp=torch.where(last_response_token(b), b.old_logp, b.reference_logp)))

    def kl_is_a_mean_over_tokens(b: RolloutBatch) -> RolloutBatch:
        k1 = (b.old_logp - b.reference_logp) / b.response_lengths()[b.sequence_id]
        return right(b.with_tokens(reference_logp=b.old_logp - k1))

    def sign_of_kl(b: RolloutBatch) -> RolloutBatch:
        return right(b.with_tokens(reference_logp=2 * b.old_logp - b.reference_logp))

    return {
        "discount .9": replace(right, gamma=0.9),
        "reward lost": lambda b: right(b.with_sequences(reward=0 * b.sequence("reward"))),
        "beta twice": replace(right, beta=2 * BETA),
        "penalty not in the optimum": replace(right, missing_eos_penalty=1.0),
        "kl skips the end": kl_skips_the_end,
        "kl is a mean over tokens": kl_is_a_mean_over_tokens,
        "sign of kl": sign_of_kl,
    }


@pytest.mark.parametrize("name", mutants())
def test_a_wrong_reward_does_not_reach_pi_star(name: str) -> None:
    world, logits = solve(mutants()[name])
    assert not world.kl_to_optimum(logits) < 5e-3


def test_missing_eos_penalty_is_part_of_the_reward() -> None:
    world = World()
    logits = world.reference.clone()
    gae = GAE(beta=BETA, lam=1.0, missing_eos_penalty=1.0, whiten=False)
    for _ in range(25):
        # With lam = 1 any baseline gives the right gradient; only the pace depends on it.
        rollouts = world.rollouts(logits, torch.zeros(len(logits), dtype=torch.float64), gae)
        gradient, _ = step(world, logits, torch.zeros(len(logits), dtype=torch.float64), rollouts, PPO())
        visits = world.by_state(rollouts.weight_by_token())[:, None]
        natural = gradient / (visits * logits.softmax(-1))
        logits = logits - 0.5 * (natural - (natural * logits.softmax(-1)).sum(-1, keepdim=True)) / BETA
    assert world.kl_to_optimum(logits, penalty=1.0) < 1e-6


def test_surrogate_gradient_at_ratio_one_is_the_policy_gradient() -> None:
    """d/dtheta of E[reward] - beta KL(pi || ref), enumerated and differentiated, KL and all."""
    world = World(temperature=0.6)
    logits = torch.randn(world.reference.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    value = torch.zeros(len(logits), dtype=torch.float64)
    rollouts = world.rollouts(logits, value, GAE(beta=BETA, lam=1.0, missing_eos_penalty=0.0, whiten=False))
    found, _ = step(world, logits, value, rollouts, PPO())

    theta = logits.clone().requires_grad_()
    logp, reference = world.log_probability(theta), world.log_probability(world.reference)
    objective = (logp.exp() * (world.reward.view(PROMPTS, -1) - BETA * (logp - reference))).sum()
    (expected,) = torch.autograd.grad(objective, theta)
    assert float((found + expected).abs().max()) < 1e-10
    assert float(expected.abs().max()) > 0.01


def test_k1_in_the_reward_has_the_mean_and_the_gradient_of_the_enumerated_kl() -> None:
    world = World()
    logits = torch.randn(world.reference.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    value = torch.zeros(len(logits), dtype=torch.float64)
    gae = GAE(beta=1.0, lam=1.0, missing_eos_penalty=0.0, whiten=False)
    free = world.rollouts(logits, value, lambda b: gae(b.with_sequences(reward=0 * b.sequence("reward"))))
    found, _ = step(world, logits, value, free, PPO())

    theta = logits.clone().requires_grad_()
    logp, reference = world.log_probability(theta), world.log_probability(world.reference)
    kl = (logp.exp() * (logp - reference)).sum()
    (expected,) = torch.autograd.grad(kl, theta)
    k1 = free.sum_by_sequence(free.old_logp - free.reference_logp)
    assert (free.weight * k1).sum().item() == pytest.approx(kl.item())
    assert float((found - expected).abs().max()) < 1e-10


def test_the_value_term_alone_finds_the_exact_critic() -> None:
    world = World()
    value = torch.zeros(len(world.reference), dtype=torch.float64)
    objective = PPO(value_coefficient=0.1, value_clip=0.2)
    for _ in range(12):
        gae = GAE(beta=BETA, lam=1.0, missing_eos_penalty=0.0, whiten=True)
        rollouts = world.rollouts(world.reference, value, gae)
        _, gradient = step(world, world.reference, value, rollouts, objective)
        value = value - 0.9 * gradient / (0.1 * world.by_state(rollouts.weight_by_token()))
    assert torch.allclose(value, world.value(world.reference), atol=1e-9)


def test_at_pi_star_nothing_is_left_to_learn() -> None:
    """There every advantage is zero, token by token, whatever lambda is."""
    world, logits = solve(GAE(beta=BETA, lam=1.0, missing_eos_penalty=0.0, whiten=False))
    gae = GAE(beta=BETA, lam=0.3, missing_eos_penalty=0.0, whiten=False)
    rollouts = world.rollouts(logits, world.value(logits), gae)
    assert float(rollouts.advantage.abs().max()) < 1e-6
