"""Shared by all implementations of the fused loss: its result, and the step from products to logits.

Axes: N tokens, V vocabulary, d width of the hidden states.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class LogProbs(NamedTuple):
    """Per-token statistics of one head, in nats; float32 (float64 for float64 inputs), 0 at ignored tokens.

    `logp` is the log-probability of the target, `lse` the log-sum-exp of the logits (what a z-loss squares),
    `entropy` the Shannon entropy of the whole distribution, or None where it was not asked for.
    """

    logp: Float[Tensor, "N"]
    lse: Float[Tensor, "N"]
    entropy: Float[Tensor, "N"] | None


@dataclass(frozen=True)
class Head:
    """How the product of hidden state and head row becomes a logit: `softcap * tanh(x / softcap) / temperature`.

    Args:
        temperature: what the sampler divided the logits by; > 0.
        softcap: bound on the logits' magnitude before the temperature (Gemma 2 uses 30); > 0, or None for none.

    Raises:
        ValueError: either is not a positive finite number.
    """

    temperature: float | int = 1.0
    softcap: float | int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"linear_logprobs: temperature must be > 0, got {self.temperature}; it divides the logits")
        if self.softcap is not None and not (math.isfinite(self.softcap) and self.softcap > 0):
            raise ValueError(f"linear_logprobs: softcap must be > 0 or None, got {self.softcap}; it bounds the logits")

    @property
    def inner(self) -> float:
        """Factor that is applied inside the matrix multiplication, where it costs nothing."""
        return 1 / self.temperature if self.softcap is None else 1 / self.softcap

    @property
    def outer(self) -> float:
        """Factor that is applied after the tanh (1 without a soft-cap)."""
        return 1.0 if self.softcap is None else self.softcap / self.temperature


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type logits and statistics are held in: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
