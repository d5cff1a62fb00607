"""Matrix products that accumulate in float32 (float64 for float64), whatever the type of their factors.

Axes: n tokens of a block, k columns of a slab, d width of the hidden states.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.kernels.types import Head, accumulation_dtype


def operand_dtype(like: Tensor) -> torch.dtype:
    """Return the type to multiply in: half on a GPU, whose tensor cores add in float32; never half on a CPU."""
    return like.dtype if like.is_cuda else accumulation_dtype(like.dtype)


def accumulate(out: Tensor, a: Tensor, b: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """Set `out = beta * out + alpha * a @ b` in `out`'s type; with beta 0, what `out` held does not matter."""
    if a.dtype == out.dtype:
        return torch.addmm(out, a, b, beta=beta, alpha=alpha, out=out)
    if not out.is_cuda:  # only GPUs multiply half types into float32
        return accumulate(out, a.to(out.dtype), b.to(out.dtype), beta=beta, alpha=alpha)
    return torch.addmm(out, a, b, out_dtype=out.dtype, beta=beta, alpha=alpha, out=out)


def logits(
    hidden: Float[Tensor, "n d"],
    weight: Float[Tensor, "k d"],
    bias: Float[Tensor, "k"] | None,
    head: Head,
    out: Float[Tensor, "n k"],
) -> Float[Tensor, "n k"]:
    """Fill `out` with logits; temperature and the soft-cap's divisor ride along in the matrix product."""
    if bias is not None:
        out.copy_(bias)
    accumulate(out, hidden, weight.t(), beta=0.0 if bias is None else head.inner, alpha=head.inner)
    if head.softcap is not None:
        out.tanh_().mul_(head.outer)
        if bias is not None:  # a masked row stays masked, where the cap would lift it to -softcap
            out.masked_fill_(bias == -torch.inf, -torch.inf)
    return out


def slope(z: Float[Tensor, "*any"], head: Head) -> Float[Tensor, "*any"]:
    """Return the soft-cap's derivative 1 − tanh², read off the capped logits; 0 for a masked row at −inf."""
    return z.div(head.outer).square_().neg_().add_(1).clamp_(min=0)
