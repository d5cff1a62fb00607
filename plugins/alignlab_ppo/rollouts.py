"""Sampled answers as a rollout batch, and a rollout batch as what a checkpoint may hold.

Axes: T tokens, S sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from alignlab import distributed
from alignlab.batch import RolloutBatch, concatenate
from alignlab.policy import Sample


def rollout_batch(samples: Sequence[Sample], samples_per_prompt: int, temperature: float) -> RolloutBatch:
    """One sequence a sample, its answer (stop token included) scored; consecutive samples of a prompt are a group."""
    rows = [[*s.prompt_ids, *s.answer_ids] for s in samples]
    masks = [[False] * len(s.prompt_ids) + [True] * len(s.answer_ids) for s in samples]
    batch = RolloutBatch.of(rows, masks, [s.prompt.text[:60] for s in samples])
    group = torch.arange(len(samples)) // samples_per_prompt
    finished = torch.tensor([float(s.finished) for s in samples])
    return replace(batch.with_sequences(group=group, finished=finished), temperature=temperature)


def gathered(batch: RolloutBatch) -> RolloutBatch:
    """The batches of all processes joined, the same on each."""
    parts: list[Any] = distributed.gather_objects([batch])
    return concatenate(parts) if len(parts) > 1 else batch


def as_state(batch: RolloutBatch) -> dict[str, Any]:
    """The batch as tensors, numbers, strings and their lists and dictionaries: loads with `weights_only`."""
    plain = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {k: dict(v) if isinstance(v, Mapping) else list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def from_state(state: Mapping[str, Any]) -> RolloutBatch:
    """The batch that `as_state` took apart."""
    return RolloutBatch(**{**state, "names": tuple(state["names"])})


def summary(rollouts: RolloutBatch) -> dict[str, float]:
    """Reward, KL to the reference in nats (the k1 estimate, summed over an answer), tokens and finished share."""
    k1 = rollouts.sum_by_sequence(rollouts.old_logp - rollouts.reference_logp)
    means = {"kl": k1, "answer_length": rollouts.response_lengths(), "finished": rollouts.sequence("finished")}
    return {k: float(v.double().mean()) for k, v in {"reward": rollouts.sequence("reward"), **means}.items()}


def explained_variance(rollouts: RolloutBatch) -> float:
    """Share of the returns' variance over response tokens that the critic foresaw; 1 is all, below 0 is harmful."""
    mask = rollouts.response_mask
    returns, error = rollouts.returns[mask], (rollouts.returns - rollouts.old_value)[mask]
    variance = returns.var(correction=0)
    return float(1 - error.var(correction=0) / variance) if variance > 0 else 0.0
