"""The choice of one token out of a distribution: tempered, cut, and drawn by one uniform number.

Axes: N samples, V vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.errors import NonFiniteError


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Args:
        temperature: the logits are divided by it; 0 takes the likeliest token.
        top_p: keep the likeliest tokens whose probabilities reach this sum; 1 keeps all.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        max_new_tokens: longest answer, its stop token included.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"Sampling: temperature must be >= 0, got {self.temperature}; 0 is greedy")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling: top_p must be in (0, 1], got {self.top_p}; 1 keeps every token")
        if self.top_k < 0:
            raise ValueError(f"Sampling: top_k must be >= 0, got {self.top_k}; 0 keeps every token")
        if self.max_new_tokens < 1:
            raise ValueError(f"Sampling: max_new_tokens must be >= 1, got {self.max_new_tokens}")


def pick(
    logits: Float[Tensor, "N V"], uniform: Float[Tensor, "N"], sampling: Sampling
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """The token of each row at quantile `uniform` of its (tempered, cut) distribution, and its log-probability."""
    if sampling.temperature == 0:
        return logits.argmax(-1), torch.zeros_like(uniform)
    probability = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_k or sampling.top_p < 1:
        probability = _cut(probability, sampling)
    cumulative = probability.cumsum(-1)
    if not bool(torch.isfinite(cumulative[:, -1]).all()):
        raise NonFiniteError(
            "generate: the logits are not finite numbers; the model's weights, or its precision, are bad"
        )
    target = uniform[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, target, right=True).clamp_max(logits.shape[1] - 1)
    return chosen[:, 0], (probability.gather(1, chosen) / cumulative[:, -1:]).log()[:, 0]


def _cut(probability: Float[Tensor, "N V"], sampling: Sampling) -> Float[Tensor, "N V"]:
    ranked, index = probability.sort(-1, descending=True)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if sampling.top_k:
        keep[:, sampling.top_k :] = False
    # A token stays while the ones before it have not reached top_p; the likeliest always stays.
    keep &= (ranked.cumsum(-1) - ranked) < sampling.top_p
    return torch.zeros_like(probability).scatter(1, index, ranked * keep)
