"""Whole rows of logits, a block of tokens at a time: the exact gradient needs three matrix products, not four.

Used where all logits may be kept from forward to backward (small problems), and where the gradient is taken in the
forward so that a block need not outlive its turn (`linear_loss_streamed`).

Axes: N tokens, n tokens of a block, V vocabulary, d width of the hidden states.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignlab.kernels import products, slabs
from alignlab.kernels.types import Head, LogProbs, accumulation_dtype

BLOCK_BYTES = 8 * 2**20  # a block of logits that stays in the last-level cache between product and softmax


def log_softmax(
    hidden: Float[Tensor, "n d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "n"],
    head: Head,
    out: Float[Tensor, "n V"],
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Fill `out` with log-probabilities; return (logp, lse)."""
    products.logits(hidden, weight, bias, head, out)
    chosen = out.gather(1, targets[:, None])[:, 0]
    peak = out.amax(1) if bias is not None else chosen  # a masked target, at −inf, could not tell the lse
    torch.log_softmax(out, 1, out=out)
    logp = out.gather(1, targets[:, None])[:, 0]
    return logp, peak - (out.amax(1) if bias is not None else logp)


def entropy(log_p: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
    """Return −Σ_v p_v log p_v; what has vanished adds 0, not 0 · ∞."""
    return -log_p.exp().mul_(log_p.clamp(min=slabs.VANISHED)).sum(1)


def fits(hidden: Tensor, weight: Tensor, limit: int) -> bool:
    """Return whether all logits, a block of gradients and (for half types) the head in float32 fit into `limit`."""
    itemsize = accumulation_dtype(hidden.dtype).itemsize
    copies = 0 if products.operand_dtype(weight) == weight.dtype else weight.numel() * itemsize
    return hidden.shape[0] * weight.shape[0] * itemsize + copies <= limit


class Kept(torch.autograd.Function):
    """Statistics of one head whose log-probabilities are kept from forward to backward; differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        head: Head,
        want_entropy: bool,
    ) -> tuple[Tensor, ...]:
        dtype, operand = accumulation_dtype(hidden.dtype), products.operand_dtype(hidden)
        log_p = torch.empty(hidden.shape[0], weight.shape[0], dtype=dtype, device=hidden.device)
        w, b = weight.to(operand), None if bias is None else bias.to(dtype)
        size = _block(weight, dtype)
        stats: list[tuple[Tensor, ...]] = []
        for start in range(0, max(1, hidden.shape[0]), size):
            rows = slice(start, start + size)
            found = log_softmax(hidden[rows].to(operand), w, b, targets[rows], head, log_p[rows])
            stats.append((*found, entropy(log_p[rows])) if want_entropy else found)
        out = stats[0] if len(stats) == 1 else tuple(torch.cat(part) for part in zip(*stats, strict=True))
        ctx.set_materialize_grads(False)
        ctx.head = head
        ctx.save_for_backward(hidden, weight, bias, targets, log_p, *out[1:])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_p, lse, *ent = ctx.saved_tensors
        up = slabs.upstream(grads, torch.ones_like(lse), ent[0] if ent else None)
        sums = Sums(hidden, weight, bias, ctx.needs_input_grad, ctx.head)
        size = _block(weight, log_p.dtype)
        work = torch.empty_like(log_p[:size])
        for start in range(0, max(1, hidden.shape[0]), size):
            rows = slice(start, min(start + size, hidden.shape[0]))
            out = work[: rows.stop - rows.start]
            sums.add(rows, gradient(log_p[rows], lse[rows], up[rows], targets[rows], ctx.head, out))
        return (*sums.finish(), None, None, None)


def gradient(
    log_p: Tensor, lse: Tensor, up: slabs.Upstream, targets: Tensor, head: Head, out: Tensor
) -> Float[Tensor, "n V"]:
    """Fill `out` (may be `log_p`) with the gradient of a block's products, up to the factor 1 / temperature."""
    slope = None if head.softcap is None else products.slope(log_p + lse[:, None], head)
    return slabs.gradient(log_p, up, targets, slope, out)


class Sums:
    """Gradients of hidden, weight and bias while blocks of tokens go by; only what is wanted is computed.

    The weight's is a sum over blocks, so it is held in float32 unless a half type sees a single block on a GPU.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        want: Sequence[bool],
        head: Head,
        *,
        single: bool = False,
    ) -> None:
        dtype = accumulation_dtype(hidden.dtype)
        self.inputs, self.scale, self.fresh = (hidden, weight, bias), 1 / head.temperature, True
        self.operand = products.operand_dtype(hidden)
        self.head = weight.to(self.operand) if want[0] else weight
        self.hidden = torch.empty_like(hidden, dtype=dtype) if want[0] else None
        self.weight = torch.empty_like(weight, dtype=self.operand if single else dtype) if want[1] else None
        self.bias = torch.zeros_like(bias, dtype=dtype) if want[2] and bias is not None else None

    def add(self, rows: slice, dz: Float[Tensor, "n V"]) -> None:
        """Take in the gradient of one block of logits."""
        factor = dz.to(self.operand)
        if self.hidden is not None:
            products.accumulate(self.hidden[rows], factor, self.head, beta=0.0, alpha=self.scale)
        if self.weight is not None:
            own, beta = self.inputs[0][rows].to(self.operand), 0.0 if self.fresh else 1.0
            products.accumulate(self.weight, factor.t(), own, beta=beta, alpha=self.scale)
        if self.bias is not None:
            self.bias.add_(dz.sum(0, dtype=self.bias.dtype), alpha=self.scale)
        self.fresh = False

    def finish(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients in the types of what they belong to."""
        sums = (self.hidden, self.weight, self.bias)
        of = zip(sums, self.inputs, strict=True)
        found = [None if s is None or i is None else s.to(i.dtype) for s, i in of]
        return found[0], found[1], found[2]


class Blocks:
    """Blocks of whole rows in one reused piece of memory: statistics first, then the gradient in the same place."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, size: int) -> None:
        dtype = accumulation_dtype(hidden.dtype)
        self.hidden, self.head, self.operand = hidden, head, products.operand_dtype(hidden)
        self.weight, self.bias = weight.to(self.operand), None if bias is None else bias.to(dtype)
        self.room = torch.empty(size, weight.shape[0], dtype=dtype, device=hidden.device)

    def statistics(self, block: slice, targets: Int[Tensor, "n"], *, want_entropy: bool) -> LogProbs:
        """Return the statistics of a block of tokens, leaving its log-probabilities in place."""
        self.log_p, self.targets = self.room[: len(targets)], targets
        own = self.hidden[block].to(self.operand)
        logp, self.lse = log_softmax(own, self.weight, self.bias, targets, self.head, self.log_p)
        self.entropy = entropy(self.log_p) if want_entropy else None
        return LogProbs(logp, self.lse, self.entropy)

    def gradient(self, grads: Sequence[Tensor | None]) -> Float[Tensor, "n V"]:
        """Turn the block that was just seen into the gradient of its products, given those of its statistics."""
        up = slabs.upstream(grads, torch.ones_like(self.lse), self.entropy)
        return gradient(self.log_p, self.lse, up, self.targets, self.head, self.log_p)


def _block(weight: Tensor, dtype: torch.dtype) -> int:
    """Return how many tokens make a block."""
    return max(1, BLOCK_BYTES // (dtype.itemsize * weight.shape[0]))


def logprobs(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "N"],
    head: Head,
    *,
    entropy: bool,
) -> LogProbs:
    """Return the statistics of every token, keeping all logits for the backward."""
    out = Kept.apply(hidden, weight, bias, targets, head, entropy)  # type: ignore[no-untyped-call]
    return LogProbs(out[0], out[1], out[2] if entropy else None)
