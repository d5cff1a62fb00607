"""Advantage: the credit that each token of a rollout gets. PPO, RLOO and GRPO differ in this.

It runs once over the whole rollout buffer, before that is cut into minibatches. Every process holds the whole buffer,
so an advantage is a pure function of it: whitening per minibatch or per process cannot happen here.

Axes: T tokens, S sequences, L response tokens of the longest sequence.
"""

import abc
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.batch import Batch, RolloutBatch
from alignlab.optimum import Credit, NoneKnown


class Advantage(abc.ABC):
    """Fills in `advantage` (and `returns`, where there is a critic) of a rollout buffer.

    `reads` names the extras of the buffer that it uses (`reward`, `finished`, `group` per sequence; `old_logp`,
    `reference_logp`, `old_value` per token), so that a stage computes no others. `VERSION` is part of a stage's
    fingerprint.
    """

    VERSION: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset({"reward"})

    @abc.abstractmethod
    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        """The same buffer with the extra `advantage`, 0 outside the response mask."""

    def optimum(self) -> Credit | NoneKnown:
        """The credit that an answer is given, in expectation; with it `alignlab verify` knows where a method ends."""
        return NoneKnown("its advantage declares none; override optimum()")


def credited(advantage: Advantage, rollouts: RolloutBatch) -> RolloutBatch:
    """The buffer with its advantages, checked where they are asked for.

    Raises:
        ValueError: the result is not a rollout batch of the same tokens with a finite `advantage` per token.
    """
    name = type(advantage).__name__
    found: object = advantage(rollouts)
    if not isinstance(found, RolloutBatch):
        raise ValueError(f"{name}: must return the rollout batch with its advantages, got a {type(found).__name__}")
    if found.num_tokens != rollouts.num_tokens or "advantage" not in found.per_token:
        raise ValueError(
            f"{name}: must return the same tokens with the extra `advantage`: rollouts.with_tokens(advantage=...)"
        )
    counted = found.advantage[found.response_mask]
    if not bool(torch.isfinite(counted).all()):
        raise ValueError(f"{name}: {int((~torch.isfinite(counted)).sum())} of its advantages are not finite numbers")
    return found


def group_mean(x: Float[Tensor, "S"], group: Int[Tensor, "S"]) -> Float[Tensor, "S"]:
    """For each sample, the mean of `x` over the samples of its group, itself included."""
    return _group_sum(x, group) / _group_sum(torch.ones_like(x), group)


def others_mean(x: Float[Tensor, "S"], group: Int[Tensor, "S"]) -> Float[Tensor, "S"]:
    """For each sample, the mean of `x` over the other samples of its group; 0 where it is alone."""
    count = _group_sum(torch.ones_like(x), group) - 1
    return (_group_sum(x, group) - x) / count.clamp_min(1) * (count > 0)


def without_signal(x: Float[Tensor, "S"], group: Int[Tensor, "S"], tolerance: float = 1e-6) -> Bool[Tensor, "S"]:
    """True for the samples of groups whose values are equal up to rounding: they carry no signal to learn from.

    Args:
        tolerance: spread of a group, over its largest magnitude or 1, below which it counts as equal.
    """
    size = int(group.max()) + 1 if group.numel() else 0
    high = x.new_full((size,), -torch.inf).scatter_reduce(0, group, x, "amax")
    low = x.new_full((size,), torch.inf).scatter_reduce(0, group, x, "amin")
    scale = torch.maximum(high.abs(), low.abs()).clamp_min(1.0)
    return (high - low <= tolerance * scale)[group]


def to_tokens(x: Float[Tensor, "S"], batch: Batch) -> Float[Tensor, "T"]:
    """The sample's value at each of its response tokens, 0 elsewhere."""
    return batch.scored(x[batch.sequence_id])


def _group_sum(x: Float[Tensor, "S"], group: Int[Tensor, "S"]) -> Float[Tensor, "S"]:
    size = int(group.max()) + 1 if group.numel() else 0
    return x.new_zeros(size).index_add(0, group, x)[group]


def paid(rollouts: RolloutBatch, beta: float, missing_eos_penalty: float) -> Float[Tensor, "S"]:
    """Pay of each answer: `reward - beta * sum over its tokens of (old_logp - reference_logp) - penalty`.

    Args:
        beta: price of leaving the reference, reward units per nat.
        missing_eos_penalty: reward units off for an answer whose extra `finished` is 0.
    """
    kl = rollouts.sum_by_sequence(rollouts.old_logp - rollouts.reference_logp)
    unfinished = 1 - rollouts.sequence("finished").to(kl.dtype)
    return rollouts.sequence("reward").to(kl.dtype) - beta * kl - missing_eos_penalty * unfinished


def token_rewards(rollouts: RolloutBatch, beta: float, missing_eos_penalty: float) -> Float[Tensor, "T"]:
    """Reward of each response token: the price of the KL at every token, the answer's reward at the last one.

    `-beta * (old_logp - reference_logp)` at *every* response token, the stop token included (the k1 estimate, whose
    sum over an answer has the right expectation and, as a reward, the right gradient), plus `reward`, less the
    penalty where the answer never stopped, at the *last response token*.

    Args:
        beta: price of leaving the reference, reward units per nat.
        missing_eos_penalty: reward units off for an answer whose extra `finished` is 0. The sampler states whether an
            answer finished; no token id is looked at, so any stop token works.

    Returns:
        `(T,)` reward units, 0 outside the response mask. A sequence without response tokens is paid nothing.
    """
    mask = rollouts.response_mask
    k1 = torch.where(mask, rollouts.old_logp - rollouts.reference_logp, 0.0)
    reward = rollouts.sequence("reward").to(k1.dtype)
    if missing_eos_penalty:
        reward = reward - missing_eos_penalty * (1 - rollouts.sequence("finished").to(k1.dtype))
    last = last_response_token(rollouts)
    return -beta * k1 + torch.where(last, reward[rollouts.sequence_id], 0.0)


def last_response_token(batch: Batch) -> Bool[Tensor, "T"]:
    """True at the last response token of each sequence."""
    at = batch.response_mask.nonzero()[:, 0]
    index = batch.tokens.new_full((batch.num_sequences,), -1)
    index = index.scatter_reduce(0, batch.sequence_id[at], at, reduce="amax")
    last = torch.zeros_like(batch.response_mask)
    last[index[index >= 0]] = True
    return last


def generalized_advantage(
    rewards: Float[Tensor, "T"], values: Float[Tensor, "T"], batch: Batch, gamma: float, lam: float
) -> Float[Tensor, "T"]:
    """Generalised advantage estimates over the response tokens of each sequence.

    `delta[t] = rewards[t] + gamma * values[t+1] - values[t]` and `A[t] = delta[t] + gamma * lam * A[t+1]`, where t+1
    is the sequence's next response token and both are 0 after its last one: an answer cut at the token limit is
    treated as ended, too (the penalty accounts for its missing stop).

    Args:
        rewards: reward units of each token.
        values: reward units, the forecast *before* each token is emitted.
        gamma: discount per token, 0 to 1.
        lam: 0 trusts the critic alone, 1 the rewards alone.

    Returns:
        `(T,)` reward units, 0 outside the response mask.

    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """
    row, column = _places(batch)
    reward, value = _table(rewards, batch, row, column), _table(values, batch, row, column)
    following = torch.cat([value[:, 1:], value.new_zeros(value.shape[0], 1)], dim=1)[:, : value.shape[1]]
    advantage = reward + gamma * following - value
    for t in range(value.shape[1] - 2, -1, -1):
        advantage[:, t] += gamma * lam * advantage[:, t + 1]
    result = torch.zeros_like(values)
    result[batch.response_mask] = advantage[row, column]
    return result


def whiten(x: Float[Tensor, "T"], weight: Float[Tensor, "T"], eps: float = 1e-8) -> Float[Tensor, "T"]:
    """`x` with weighted mean 0 and weighted variance 1 over the entries of non-zero weight; 0 elsewhere.

    Where all entries are equal they carry no signal, and all become 0.
    """
    valid = weight != 0
    w = weight.to(x.dtype)
    w = w / w.sum().clamp_min(torch.finfo(x.dtype).tiny)
    kept = torch.where(valid, x, 0.0)
    centred = torch.where(valid, kept - (kept * w).sum(), 0.0)
    variance = (centred.square() * w).sum()
    return centred * (variance + eps).rsqrt()


def _places(batch: Batch) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Sequence of each response token, and the token's number among the response tokens of that sequence."""
    row = batch.sequence_id[batch.response_mask]
    length = batch.response_lengths()
    start = length.cumsum(0) - length
    return row, torch.arange(row.shape[0], device=row.device) - start[row]


def _table(
    x: Float[Tensor, "T"], batch: Batch, row: Int[Tensor, "N"], column: Int[Tensor, "N"]
) -> Float[Tensor, "S L"]:
    """The response tokens' entries, one row per sequence, 0 after its end."""
    width = int(column.max()) + 1 if column.numel() else 0
    table = x.new_zeros(batch.num_sequences, width)
    table[row, column] = x[batch.response_mask]
    return table
