"""The fused loss on NVIDIA GPUs: logits made and reduced by Triton, gradients multiplied by cuBLAS.

Forward: one kernel, one tile of logits per program, float32 in registers; per-tile sums are combined in a fixed order.
Backward over slabs of the vocabulary: a kernel makes the slab's logits again and writes their gradient in half
precision into the workspace; cuBLAS multiplies it by the hidden states (a slab of the weight's gradient, written
once) and by the head (added up in float32). Slabs of the vocabulary read and write far less than chunks of tokens,
which would add to the whole weight's gradient once per chunk.

Axes: N tokens, n tokens of a block, V vocabulary, k columns of a slab, d width of the hidden states.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import slabs, triton_launch
from alignlab.kernels.once import once
from alignlab.kernels.tiles import Problem, Sums, Tile
from alignlab.kernels.triton_launch import Blocks, Launch
from alignlab.kernels.types import Head, LogProbs


def logprobs(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "N"],
    head: Head,
    *,
    entropy: bool,
    workspace_mb: float | int,
    blocks: Blocks | None = None,
) -> LogProbs:
    """Return the statistics of every token; every target is valid. See `linear_logprobs` for the maths.

    Raises:
        ValueError: float64 inputs, which no tensor core takes; use "chunked".
    """
    check(hidden)
    launch = Launch(*dense(hidden, weight, bias), head, blocks or Blocks.of(hidden))
    out = _LogProbs.apply(
        launch.hidden, launch.weight, launch.bias, targets, launch, entropy, int(workspace_mb * 2**20)
    )  # type: ignore[no-untyped-call]
    return LogProbs(out[0], out[1], out[2] if entropy else None)


def check(hidden: Tensor) -> None:
    """Raise where the kernels cannot take the type or the device."""
    if hidden.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ValueError(f"linear_logprobs: triton takes half types and float32, got {hidden.dtype}; use chunked")
    if not (hidden.is_cuda or triton_launch.INTERPRETED):
        raise ValueError(f"linear_logprobs: triton needs an NVIDIA GPU, got a tensor on {hidden.device}; use chunked")


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the operands in row-major memory, which is all that the kernels know; no copy where they are already."""
    return hidden.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()


class _LogProbs(torch.autograd.Function):
    """Statistics of one head, differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        launch: Launch,
        entropy: bool,
        workspace: int,
    ) -> tuple[Tensor, ...]:
        peak, total, *out = statistics(launch, targets, entropy, workspace)
        ctx.set_materialize_grads(False)
        ctx.head, ctx.blocks, ctx.workspace = launch.head, launch.blocks, workspace
        ctx.save_for_backward(hidden, weight, bias, targets, peak, total, *out[2:])
        return tuple(out)

    @staticmethod
    @once
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, peak, total, *ent = ctx.saved_tensors
        columns = ctx.workspace // max(1, hidden.shape[0] * hidden.element_size())
        columns = min(max(ctx.blocks.words, columns - columns % ctx.blocks.words), weight.shape[0])
        problem = Problem(hidden, weight, bias, ctx.head, slabs.Plan(len(hidden), len(weight), len(hidden), columns))
        up = slabs.upstream(grads, total, ent[0] if ent else None).dense()
        sums = Sums(problem, ctx.needs_input_grad)
        work = torch.empty(len(hidden) * columns, dtype=hidden.dtype, device=hidden.device)
        for slab in problem.cut.slabs():
            w = weight[slab]
            launch = Launch(hidden, w, None if bias is None else bias[slab], ctx.head, ctx.blocks)
            dz = launch.gradient(targets, peak, up, slab.start, work[: len(hidden) * len(w)].view(len(hidden), len(w)))
            sums.add(Tile(slice(0, len(hidden)), slab, hidden, w), dz)
        return (*sums.finish(), None, None, None, None)


def statistics(launch: Launch, targets: Int[Tensor, "N"], entropy: bool, workspace: int) -> list[Tensor]:
    """Return peak, total, logp, lse and, if asked for, entropy; in blocks, so that the tiles' sums stay bounded."""
    tiles = -(-launch.weight.shape[0] // launch.blocks.words)
    size = max(launch.blocks.tokens, workspace // (4 * tiles * (5 if entropy else 3)))
    found: list[tuple[Tensor, ...]] = []
    for start in range(0, max(1, len(targets)), size):
        part = slice(start, start + size)
        online, _ = replace(launch, hidden=launch.hidden[part]).statistics(targets[part], entropy=entropy)
        logp, lse, ent = online.finish()
        found.append((online.peak, online.total, logp, lse, *(() if ent is None else (ent,))))
    return [column[0] if len(column) == 1 else torch.cat(column) for column in zip(*found, strict=True)]
