"""Cases made hostile: poison in masked places, and statistics far from anything sane."""

from typing import Any

import torch
from torch import Tensor

from alignlab.testing.cases import PER_SEQUENCE, Case


def tensors(case: Case) -> dict[str, Tensor]:
    """Everything that an objective is given, by name."""
    batch = case.batch
    own = {n: getattr(batch, n) for n in ("tokens", "sequence_id", "position", "response_mask", "weight")}
    return {**own, **batch.per_token, **batch.per_sequence, **{f"now.{k}": v.detach() for k, v in case.now.items()}}


def poisoned(case: Case, value: float) -> Case:
    """The case with `value` in every masked place of every per-token statistic and extra."""

    def poison(x: Tensor) -> Tensor:
        per_token = x.shape[0] == case.batch.num_tokens
        return x.masked_fill(~case.batch.response_mask, value) if per_token and x.ndim == 1 else x

    return case.map(poison)


def extreme(name: str, value: Tensor, batch: Any, sign: int) -> Tensor:
    """Every second sequence hundreds of nats (or a thousand reward units) one way, its neighbours the other way."""
    size = torch.full_like(value.detach(), 1000.0 if name in PER_SEQUENCE else 100.0)
    sequence = torch.arange(len(size)) if name in PER_SEQUENCE else batch.sequence_id
    direction = torch.where(sequence % 2 == 0, sign, -sign)
    # Log-probabilities cannot leave zero upwards, and entropies cannot fall below it.
    extreme = {"logp": -size * (direction > 0), "entropy": size * (direction > 0)}.get(name, size * direction)
    return extreme.requires_grad_()
