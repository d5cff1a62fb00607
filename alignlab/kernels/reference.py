"""The fused loss, unfused: the whole [N, V] matrix of logits by plain autograd. The oracle of every other path.

Axes: N tokens, V vocabulary, d width of the hidden states.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels.types import Head, LogProbs, accumulation_dtype


def logits(
    hidden: Float[Tensor, "N d"], weight: Float[Tensor, "V d"], bias: Float[Tensor, "V"] | None, head: Head
) -> Float[Tensor, "N V"]:
    """Return the logits in the accumulation type; a row of the vocabulary at −inf stays there under a soft-cap."""
    dtype = accumulation_dtype(hidden.dtype)
    product = torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    if head.softcap is not None:
        capped = head.softcap * torch.tanh(product / head.softcap)
        product = torch.where(product == -torch.inf, product, capped)
    return product / head.temperature


def logprobs(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "N"],
    head: Head,
    *,
    entropy: bool,
) -> LogProbs:
    """Return `z_y − lse`, `lse = log Σ_v exp z_v` and, if asked for, `−Σ_v p_v log p_v`; every target is valid."""
    z = logits(hidden, weight, bias, head)
    log_p = torch.log_softmax(z, dim=-1)
    chosen = log_p.gather(1, targets[:, None])[:, 0]
    if not entropy:
        return LogProbs(chosen, torch.logsumexp(z, dim=-1), None)
    finite = log_p.masked_fill(log_p == -torch.inf, 0.0)  # a masked row has p = 0 and adds 0, not 0 * inf
    return LogProbs(chosen, torch.logsumexp(z, dim=-1), -(log_p.exp() * finite).sum(-1))
