"""REINFORCE with leave-one-out credit, and GRPO, against their closed forms on a world of fifteen answers.

The world: vocabulary {a, b, EOS}, at most 3 tokens, 2 prompts, float64. A tabular policy has one row of logits for
every prefix. Every pair of answers to a prompt is there once, weighted by its exact probability, so that the mean over
samples is an exact expectation and nothing is random.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from alignlab_grpo import GRPO, GroupRelative, LeaveOneOut, Reinforce
from torch import Tensor

from alignlab.advantage import last_response_token
from alignlab.batch import RolloutBatch
from alignlab.stats import TokenStats

A, B, EOS, PROMPTS, BETA = 0, 1, 2, 2, 0.5
ANSWERS = [
    y
    for length in (1, 2, 3)
    for y in itertools.product((A, B, EOS), repeat=length)
    if EOS not in y[:-1] and (y[-1] == EOS or length == 3)
]
PREFIXES = [y for length in (0, 1, 2) for y in itertools.product((A, B), repeat=length)]
STATES = PROMPTS * len(PREFIXES)
PAIRS = [(p, y) for p in range(PROMPTS) for pair in itertools.product(ANSWERS, repeat=2) for y in pair]
ONES = [(p, y) for p in range(PROMPTS) for y in ANSWERS]
Credit = Callable[[RolloutBatch], RolloutBatch]


class World:
    """Sampled answers as a rollout batch, `each` in a group; `state` numbers each token's (prompt, prefix)."""

    def __init__(self, asked: list[tuple[int, tuple[int, ...]]], each: int, temperature: float = 1.0) -> None:
        rows = [[3 + p, *y] for p, y in asked]
        batch = RolloutBatch.of(rows, [[False] + [True] * (len(r) - 1) for r in rows], temperature=temperature)
        generator = torch.Generator().manual_seed(0)
        rewards = torch.randn(len(ONES), generator=generator, dtype=torch.float64)
        self.reference = torch.randn(STATES, 3, generator=generator, dtype=torch.float64)
        finished = torch.tensor([float(r[-1] == EOS) for r in rows], dtype=torch.float64)
        reward = rewards[torch.tensor([ONES.index(x) for x in asked])]
        group = torch.arange(len(rows)) // each
        self.batch = batch.with_sequences(reward=reward, finished=finished, group=group)
        before = [[0, *(p * len(PREFIXES) + PREFIXES.index(y[:t]) for t in range(len(y)))] for p, y in asked]
        self.state = torch.tensor([s for row in before for s in row])

    def logp(self, logits: Tensor) -> Tensor:
        table = (logits / self.batch.temperature).log_softmax(-1)[self.state]
        return table.gather(1, self.batch.tokens.clamp_max(EOS)[:, None])[:, 0] * self.batch.response_mask

    def log_probability(self, logits: Tensor) -> Tensor:
        """`(S,)`"""
        return self.batch.sum_by_sequence(self.logp(logits))

    def rollouts(self, logits: Tensor, credit: Credit) -> RolloutBatch:
        """Each group weighted by its probability, with its advantages."""
        group = self.batch.group
        weight = torch.zeros(int(group.max()) + 1, dtype=torch.float64)
        weight = weight.index_add(0, group, self.log_probability(logits)).exp()[group]
        batch = replace(self.batch, weight=weight)
        return credit(batch.with_tokens(old_logp=self.logp(logits), reference_logp=self.logp(self.reference)))

    def slope(self, objective: Any, logits: Tensor, rollouts: RolloutBatch) -> Tensor:
        """Gradient of the loss, a mean over samples, by the logits; times the number of prompts."""
        leaf = logits.detach().requires_grad_()
        loss = objective(TokenStats({"logp": self.logp(leaf)}), rollouts)
        (gradient,) = torch.autograd.grad(loss.mean(objective.units(rollouts)), leaf)
        return gradient * PROMPTS


def objective_of(logits: Tensor, world: World, beta: float, penalty: float = 0.0) -> Tensor:
    """Sum over prompts of E[reward] - beta KL(policy || reference), enumerated; differentiable, KL and all."""
    logp, reference = world.log_probability(logits), world.log_probability(world.reference)
    reward = world.batch.sequence("reward") - penalty * (1 - world.batch.sequence("finished"))
    return (logp.exp() * (reward - beta * (logp - reference))).sum()


def somewhere(seed: int = 3) -> Tensor:
    return torch.randn(STATES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- REINFORCE, leave one out ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_expected_gradient_is_the_policy_gradient_of_reward_less_beta_kl(temperature: float) -> None:
    pairs, ones = World(PAIRS, 2, temperature), World(ONES, 1, temperature)
    rollouts = pairs.rollouts(somewhere(), LeaveOneOut(beta=BETA, missing_eos_penalty=0.7))
    found = pairs.slope(Reinforce(), somewhere(), rollouts)
    theta = somewhere().requires_grad_()
    (expected,) = torch.autograd.grad(objective_of(theta, ones, BETA, penalty=0.7), theta)
    assert float((found + expected).abs().max()) < 1e-12
    assert float(expected.abs().max()) > 0.01


def solve(credit: Credit, rounds: int = 40) -> float:
    """Natural gradient on the method's own gradient: for a table, Fisher is visits * probability, a division.

    Returns the divergence from pi* ~ pi_ref exp(reward / beta) at its end.
    """
    pairs, ones = World(PAIRS, 2), World(ONES, 1)
    logits = pairs.reference.clone()
    for _ in range(rounds):
        gradient = pairs.slope(Reinforce(), logits, pairs.rollouts(logits, credit))
        probability = ones.log_probability(logits).exp()
        visits = torch.zeros(STATES, dtype=torch.float64)
        mask = ones.batch.response_mask
        visits = visits.index_add(0, ones.state[mask], probability[ones.batch.sequence_id[mask]])
        natural = gradient / (visits[:, None] * logits.softmax(-1))
        logits = logits - 0.5 * (natural - (natural * logits.softmax(-1)).sum(-1, keepdim=True)) / BETA
    found = ones.log_probability(logits).view(PROMPTS, -1)
    reward = ones.batch.sequence("reward").view(PROMPTS, -1)
    best = (ones.log_probability(ones.reference).view(PROMPTS, -1) + reward / BETA).log_softmax(-1)
    return float((found.exp() * (found - best)).sum(-1).max())


RIGHT = LeaveOneOut(beta=BETA, missing_eos_penalty=0.0)


def test_its_fixed_point_is_pi_star() -> None:
    assert solve(RIGHT, rounds=0) > 0.1
    assert solve(RIGHT) < 1e-9


def kl_skips_the_end(b: RolloutBatch) -> RolloutBatch:
    return RIGHT(b.with_tokens(reference_logp=torch.where(last_response_token(b), b.old_logp, b.reference_logp)))


def kl_is_a_mean_over_tokens(b: RolloutBatch) -> RolloutBatch:
    k1 = (b.old_logp - b.reference_logp) / b.response_lengths()[b.sequence_id]
    return RIGHT(b.with_tokens(reference_logp=b.old_logp - k1))


def sign_of_kl(b: RolloutBatch) -> RolloutBatch:
    return RIGHT(b.with_tokens(reference_logp=2 * b.old_logp - b.reference_logp))


MUTANTS: dict[str, Credit] = {
    "kl skips the end": kl_skips_the_end,
    "kl is a mean over tokens": kl_is_a_mean_over_tokens,
    "sign of kl": sign_of_kl,
    "beta twice": replace(RIGHT, beta=2 * BETA),
    "penalty not in the optimum": replace(RIGHT, missing_eos_penalty=1.0),
    "divided by the deviation": lambda b: GroupRelative(eps=0.0)(b),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_another_credit_does_not_reach_pi_star(name: str) -> None:
    assert not solve(MUTANTS[name]) < 5e-3


# ---- GRPO -----------------------------------------------------------------------------------------------------------
def centred(rollouts: RolloutBatch) -> RolloutBatch:
    """The reward less a constant: any baseline leaves the expectation alone."""
    reward = rollouts.sequence("reward") - 0.3
    return rollouts.with_tokens(advantage=rollouts.scored(reward[rollouts.sequence_id]))


def test_grpos_gradient_is_that_of_reward_less_beta_times_the_kl_from_the_reference() -> None:
    """On answers of one token, where the mean over tokens is the sum: k3 as a loss pulls like KL(reference || policy).

    Its expectation is the other divergence, KL(policy || reference): value and gradient are not of one thing.
    """
    one = [(p, (y,)) for p in range(PROMPTS) for y in (A, B, EOS)]
    world = World.__new__(World)
    world.batch = RolloutBatch.of([[3 + p, *y] for p, y in one], [[False, True]] * len(one))
    world.state = torch.tensor([p * len(PREFIXES) for p, _ in one]).repeat_interleave(2)
    world.reference = somewhere(5)
    world.batch = world.batch.with_sequences(
        reward=torch.arange(6.0).double() / 3, finished=torch.ones(6), group=torch.arange(6)
    )
    logits = somewhere()
    found = world.slope(GRPO(beta=BETA), logits, world.rollouts(logits, centred))
    theta = logits.clone().requires_grad_()
    logp, reference = world.log_probability(theta), world.log_probability(world.reference)
    wanted = (logp.exp() * world.batch.sequence("reward")).sum() - BETA * (reference.exp() * (reference - logp)).sum()
    (expected,) = torch.autograd.grad(wanted, theta, retain_graph=True)
    assert float((found + expected).abs().max()) < 1e-12
    other = (logp.exp() * world.batch.sequence("reward")).sum() - BETA * (logp.exp() * (logp - reference)).sum()
    (reverse,) = torch.autograd.grad(other, theta)
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
    reward = torch.tensor([0.0, 1.5, -0.7, 0.3, 1.0], dtype=torch.float64)
    reference = torch.tensor([0.1, -0.4, 0.8, 0.0, -1.0], dtype=torch.float64).log_softmax(0)
    batch = RolloutBatch.of([[1, 2]] * 5, [[False, True]] * 5).with_sequences(reward=reward)

    def spread(x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x), x], 1).flatten()

    logits, objective = reference.clone(), GRPO(beta=BETA)
    for _ in range(80):
        leaf = logits.detach().requires_grad_()
        logp = leaf.log_softmax(0)
        old = spread(logp.detach())
        rollouts = replace(batch, weight=logp.detach().exp())
        rollouts = centred(rollouts.with_tokens(old_logp=old, reference_logp=spread(reference)))
        loss = objective(TokenStats({"logp": spread(logp)}), rollouts)
        (gradient,) = torch.autograd.grad(loss.mean(objective.units(rollouts)), leaf)
        logits = logits - 4 * gradient
    found = logits.softmax(0)
    assert float((found - optimum(reward, reference.exp())).abs().max()) < 1e-6
    assert float((found - (reference + reward / BETA).softmax(0)).abs().max()) > 0.05
