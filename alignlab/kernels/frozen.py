"""A head that does not train: the gradient of the hidden states, ready by the end of the forward.

With the head fixed, d logp / dh = W_y − Σ_v p_v W_v, and the sum can be carried along with the online softmax like
the values in flash attention. Two matrix products in the forward and none in the backward, where recomputing the
logits would take three.

Axes: N tokens, n tokens of a block, V vocabulary, k columns of a slab, d width of the hidden states.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import products, slabs
from alignlab.kernels.once import once
from alignlab.kernels.tiles import Problem
from alignlab.kernels.types import Head, LogProbs, accumulation_dtype


def logprobs(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "N"],
    head: Head,
    cut: slabs.Plan,
) -> LogProbs:
    """Return logp and lse of every token, differentiable to the hidden states alone."""
    logp, lse = _Frozen.apply(hidden, weight, bias, targets, head, cut)  # type: ignore[no-untyped-call]
    return LogProbs(logp, lse, None)


class _Frozen(torch.autograd.Function):
    """Keeps `pull`, the gradient of lse to the hidden states, and the slope of the target's logit."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, cut: slabs.Plan
    ) -> tuple[Tensor, Tensor]:
        online = slabs.Online(hidden, cut.tokens, entropy=False)
        pull = _walk(Problem(hidden, weight, bias, head, cut), targets, online).div_(online.total[:, None])
        logp, lse, _ = online.finish()
        slope = None if head.softcap is None else products.slope(online.chosen, head)
        ctx.set_materialize_grads(False)
        ctx.head, ctx.dtype, ctx.cut = head, hidden.dtype, cut
        ctx.save_for_backward(weight, targets, pull, slope, logp)  # logp: what `once` finds the hidden states by
        return logp, lse

    @staticmethod
    @once
    def backward(ctx: Any, g: Tensor | None, gl: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, targets, pull, slope, _ = ctx.saved_tensors
        both = (0 if gl is None else gl) - (0 if g is None else g)
        d_hidden = pull * both[:, None] if isinstance(both, Tensor) else torch.zeros_like(pull)
        if g is not None:
            at = g if slope is None else g * slope
            for rows in ctx.cut.blocks():  # a block at a time, so that the rows of the head are not all gathered
                d_hidden[rows].addcmul_(weight[targets[rows]].to(pull.dtype), at[rows, None])
        return d_hidden.div_(ctx.head.temperature).to(ctx.dtype), None, None, None, None, None


def _walk(problem: Problem, targets: Tensor, online: slabs.Online) -> Float[Tensor, "N d"]:
    """Walk over the tiles once; return Σ_v exp(z_v − peak)·slope_v·W_v."""
    pull = torch.zeros_like(problem.hidden, dtype=accumulation_dtype(problem.hidden.dtype))
    for tile, z in problem.tiles():
        online.take_target(tile.block, z, targets[tile.block] - tile.columns.start)
        slope = None if problem.head.softcap is None else products.slope(z, problem.head)
        decay = online.update(tile.block, z)
        share = z if slope is None else z.mul_(slope)
        products.accumulate(pull[tile.block].mul_(decay[:, None]), share.to(tile.weight.dtype), tile.weight)
    return pull
