"""Small problems: all probabilities are kept from forward to backward, which then needs no product but the gradients'.

Axes: N tokens, V vocabulary, d width of the hidden states.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import products, rows, slabs
from alignlab.kernels.once import once
from alignlab.kernels.types import Head, LogProbs, accumulation_dtype


def fits(hidden: Tensor, weight: Tensor, limit: int) -> bool:
    """Return whether all logits, a block of gradients and (for half types) the head in float32 fit into `limit`."""
    itemsize = accumulation_dtype(hidden.dtype).itemsize
    copies = 0 if products.operand_dtype(weight) == weight.dtype else weight.numel() * itemsize
    return hidden.shape[0] * weight.shape[0] * itemsize + copies <= limit


class Kept(torch.autograd.Function):
    """Statistics of one head whose probabilities are kept from forward to backward; differentiable once."""

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
        p = torch.empty(hidden.shape[0], weight.shape[0], dtype=dtype, device=hidden.device)
        w, b = weight.to(operand), None if bias is None else bias.to(dtype)
        stats: list[tuple[Tensor, ...]] = []
        for block in rows.blocks_of(p):
            found = rows.softmax(hidden[block].to(operand), w, b, targets[block], head, p[block])
            stats.append((*found, rows.entropy(p[block])) if want_entropy else found)
        out = stats[0] if len(stats) == 1 else tuple(torch.cat(part) for part in zip(*stats, strict=True))
        ctx.set_materialize_grads(False)
        ctx.head, ctx.lock = head, threading.Lock()
        ctx.save_for_backward(hidden, weight, bias, targets, p, *out)
        return out

    @staticmethod
    @once
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, p, *stats = ctx.saved_tensors
        found = LogProbs(stats[0], stats[1], stats[2] if len(stats) > 2 else None)
        sums = rows.Sums(hidden, weight, bias, ctx.needs_input_grad, ctx.head)
        with ctx.lock:  # `p` is borrowed below: a graph that is kept may be walked by several threads
            _add_gradients(p, found, grads, targets, ctx.head, sums)
        return (*sums.finish(), None, None, None)


def _add_gradients(
    p: Tensor, found: LogProbs, grads: Sequence[Tensor | None], targets: Tensor, head: Head, sums: rows.Sums
) -> None:
    """Add up what kept probabilities give; they are as before when this returns or raises."""
    if rows.plain(grads, head):
        # In place and put back after: `.data`, since for a second backward nothing has changed.
        p, at = p.data, targets[:, None]
        own = p.gather(1, at)
        try:
            sums.add(slice(0, len(p)), *rows.less_target(p, targets, grads[0]))
        finally:
            p.scatter_(1, at, own)
        return
    up = slabs.upstream(grads, torch.ones_like(found.lse), found.entropy)
    for block in rows.blocks_of(p):
        own_stats = LogProbs(found.logp[block], found.lse[block], None)
        sums.add(block, rows.gradient(p[block], own_stats, up[block], targets[block], head))


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
