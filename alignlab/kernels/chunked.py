"""The fused loss in plain PyTorch: exact, differentiable, one slab of logits at a time.

The vocabulary is cut into slabs of columns. The forward walks over them with a running maximum and a running sum
of exponentials (the online softmax), so that it needs one slab at a time; the backward makes each slab again, turns
it into the gradient of the logits in place, and multiplies it away: four matrix products instead of three, and
no [N, V] matrix. A slab of the weight's gradient is written once, so nothing is accumulated in half precision.
Where all logits are small they are kept (`kept`); where the head is frozen the backward is free (`frozen`).

Axes: N tokens, n tokens of a block, V vocabulary, k columns of a slab, d width of the hidden states.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import frozen, kept, products, slabs
from alignlab.kernels.once import once
from alignlab.kernels.tiles import Problem, Sums
from alignlab.kernels.types import Head, LogProbs

KEEP_BYTES = 64 * 2**20  # logits up to this size are kept: making them again costs a matrix product


def logprobs(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "N"],
    head: Head,
    *,
    entropy: bool,
    workspace_mb: float | int,
) -> LogProbs:
    """Return the statistics of every token; every target is valid. See `linear_logprobs` for the maths."""
    grad = torch.is_grad_enabled()
    head_trains = weight.requires_grad or (bias is not None and bias.requires_grad)
    learns = grad and (hidden.requires_grad or head_trains)
    if learns and kept.fits(hidden, weight, min(KEEP_BYTES, int(workspace_mb * 2**20))):
        return kept.logprobs(hidden, weight, bias, targets, head, entropy=entropy)
    buffers = 1 + entropy + (head.softcap is not None)
    cut = slabs.plan(hidden, weight.shape[0], workspace_mb, buffers)
    if learns and not head_trains and not entropy:
        return frozen.logprobs(hidden, weight, bias, targets, head, cut)
    out = _Slabs.apply(hidden, weight, bias, targets, head, cut, entropy)  # type: ignore[no-untyped-call]
    return LogProbs(out[0], out[1], out[2] if entropy else None)


class _Slabs(torch.autograd.Function):
    """Statistics of one head, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        head: Head,
        cut: slabs.Plan,
        entropy: bool,
    ) -> tuple[Tensor, ...]:
        online = _forward(Problem(hidden, weight, bias, head, cut), targets, entropy)
        logp, lse, ent = online.finish()
        ctx.set_materialize_grads(False)
        ctx.head, ctx.cut = head, cut
        ctx.save_for_backward(hidden, weight, bias, targets, online.peak, online.total, ent)
        return (logp, lse) if ent is None else (logp, lse, ent)

    @staticmethod
    @once
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, peak, total, entropy = ctx.saved_tensors
        problem = Problem(hidden, weight, bias, ctx.head, ctx.cut)
        sums = Sums(problem, ctx.needs_input_grad)
        _backward(problem, targets, peak, slabs.upstream(grads, total, entropy), sums)
        return (*sums.finish(), None, None, None, None)


def _forward(problem: Problem, targets: Tensor, entropy: bool) -> slabs.Online:
    """Walk over the tiles once, keeping nothing but the running statistics."""
    online = slabs.Online(problem.hidden, problem.cut.tokens, entropy=entropy)
    for tile, z in problem.tiles():
        online.take_target(tile.block, z, targets[tile.block] - tile.columns.start)
        online.update(tile.block, z)
    return online


def _backward(problem: Problem, targets: Tensor, peak: Tensor, up: slabs.Upstream, sums: Sums) -> None:
    """Walk over the tiles again, turning each into the gradient of its products."""
    for tile, z in problem.tiles():
        slope = None if problem.head.softcap is None else products.slope(z, problem.head)
        offset = targets[tile.block] - tile.columns.start
        sums.add(tile, slabs.gradient(z.sub_(peak[tile.block, None]), up[tile.block], offset, slope, out=z))
