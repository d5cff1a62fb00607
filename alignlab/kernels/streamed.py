"""`linear_loss_streamed`: a loss that is a sum over tokens, with its gradient taken in the forward.

When the loss of a token depends on that token's statistics alone (cross-entropy, REINFORCE, the clipped ratio of
PPO and GRPO, a z-loss, an entropy bonus), a block of logits can be turned into its gradient as soon as it exists,
and forgotten: three matrix products in all, where recomputing takes four.

Axes: N tokens, n tokens of a block, V vocabulary, d width of the hidden states.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from alignlab.kernels import linear, rows
from alignlab.kernels.once import once
from alignlab.kernels.prepare import Packed, pack
from alignlab.kernels.types import Head, LogProbs, accumulation_dtype

TokenLoss: TypeAlias = Callable[[LogProbs, Int[Tensor, "n"]], Float[Tensor, "n"]]

BLOCK_BYTES = 16 * 2**20  # on a CPU: smaller blocks read and write the weight's gradient more often


class Streamed(NamedTuple):
    """The loss, differentiable once, and every token's statistics, as constants (for metrics)."""

    loss: Float[Tensor, ""]
    stats: LogProbs


def linear_loss_streamed(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    targets: Integer[Tensor, "N"],
    token_loss_fn: TokenLoss,
    bias: Float[Tensor, "V"] | None = None,
    *,
    temperature: float | int = 1.0,
    softcap: float | int | None = None,
    ignore_index: int = -100,
    entropy: bool = False,
    workspace_mb: float | int = 256,
    implementation: linear.Implementation | None = None,
) -> Streamed:
    """Return Σ_n ℓ_n over the valid tokens, where ℓ = token_loss_fn(stats, tokens) sees one block at a time.

    `token_loss_fn` gets the `LogProbs` of a block and the positions of its tokens in the batch (to look up
    advantages, old log-probabilities, weights), and returns one loss per token. It is called once per block, in order,
    and must depend on nothing else that trains: its gradient goes to hidden, weight and bias alone.

    Args:
        hidden, weight, targets, bias, temperature, softcap, ignore_index, entropy: as in `linear_logprobs`.
        workspace_mb: MiB that may be used beyond inputs, outputs and gradients. For half types the gradient of the
            weight is summed in float32, which comes on top (and on a CPU the head in float32). Where Triton runs and
            the exponentials of all tokens fit into both together, they take that room, and there is no such sum.
        implementation: "reference", "chunked" or "triton"; by default chosen by device and type.

    Raises:
        ValueError: as `linear_logprobs`; and where the loss of a token reaches another tensor that trains.
        IndexError: a target outside the vocabulary.
        RuntimeError: a second backward through the same loss; its gradients were handed over by the first.

    Source: the gradient in the forward is Hsu et al. 2024 (Liger Kernel), arXiv:2410.10989, §3.2.
    """
    head = Head(temperature, softcap)
    packed = pack(hidden, weight, targets, bias, ignore_index)
    positions = torch.arange(packed.tokens, device=hidden.device) if packed.rows is None else packed.rows
    with torch.autocast(hidden.device.type, enabled=False):
        if implementation == "reference":
            return _reference(packed, head, token_loss_fn, positions, entropy)
        chosen = linear.choose(implementation, packed.hidden)
        task = _Task(head, token_loss_fn, positions, entropy, workspace_mb, torch.is_grad_enabled(), chosen)
        loss, *stats = _Streamed.apply(packed.hidden, packed.weight, packed.bias, packed.targets, task)  # type: ignore[no-untyped-call]
    logp, lse, *ent = (packed.restore(s) for s in stats)
    return Streamed(loss, LogProbs(logp, lse, ent[0] if ent else None))


class _Task(NamedTuple):
    """Settings of a streamed loss, without its tensors."""

    head: Head
    loss: TokenLoss
    positions: Int[Tensor, "N"]
    entropy: bool
    workspace_mb: float | int
    learns: bool
    implementation: linear.Implementation


def _reference(packed: Packed, head: Head, loss: TokenLoss, positions: Tensor, entropy: bool) -> Streamed:
    """The same by plain autograd over all logits."""
    stats = linear.dispatch("reference", packed, head, entropy, workspace_mb=0)
    logp, lse, ent = (None if s is None else packed.restore(s.detach()) for s in stats)
    constants = LogProbs(logp, lse, ent)  # type: ignore[arg-type]
    return Streamed(loss(stats, positions).sum(), constants)


class _Streamed(torch.autograd.Function):
    """Takes the gradients in the forward; the backward multiplies them by the upstream scalar."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, task: _Task
    ) -> tuple[Tensor, ...]:
        want = [task.learns and needed for needed in ctx.needs_input_grad[:3]]
        loss, stats, sums = _stream(hidden, weight, bias, targets, task, want)
        ctx.grads, ctx.implementation = sums.finish(), task.implementation
        ctx.mark_non_differentiable(*stats)
        ctx.save_for_backward(loss)  # what `once` finds the inputs by
        return loss, *stats

    @staticmethod
    @once
    def backward(ctx: Any, upstream: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError(
                "linear_loss_streamed: backward a second time; the first took the gradients, so that they need no "
                "copy. Use linear_logprobs where a graph is kept"
            )
        grads, ctx.grads = ctx.grads, None
        if upstream.is_cuda or upstream.item() != 1:  # asking a GPU for the value would stall it
            for grad in grads:
                _scale(grad, upstream, ctx.implementation)
        return (*grads, None, None)


def _stream(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, task: _Task, want: Sequence[bool]
) -> tuple[Tensor, list[Tensor], rows.Sums]:
    """Go over the blocks once; return the loss, the statistics of every token, and the gradients."""
    n, size = hidden.shape[0], _block(hidden, weight, task, sums_weight=want[1])
    blocks = _blocks(task.implementation)(hidden, weight, bias, task.head, min(size, n))
    sums = rows.Sums(hidden, weight, bias, want, task.head, single=n <= size, cast=blocks.weight)
    loss = torch.zeros((), dtype=accumulation_dtype(hidden.dtype), device=hidden.device)
    found: list[LogProbs] = []
    for start in range(0, max(1, n), size):
        block = slice(start, min(start + size, n))
        stats = blocks.statistics(block, targets[block], want_entropy=task.entropy)
        part, grads = token_gradients(task.loss, stats, task.positions[block], learns=any(want))
        loss += part
        found.append(stats)
        if any(want):
            sums.add(block, *blocks.gradient(grads))
    columns = zip(*found, strict=True)
    return loss, [torch.cat(column) for column in columns if column[0] is not None], sums


def _blocks(implementation: linear.Implementation) -> type[rows.Blocks]:
    """Return what makes blocks of logits and turns them into gradients."""
    if implementation != "triton":
        return rows.Blocks
    from alignlab.kernels import triton_rows  # late, as in `linear.dispatch`

    return triton_rows.Blocks


def _block(hidden: Tensor, weight: Tensor, task: _Task, *, sums_weight: bool) -> int:
    """Return how many tokens a block has: whole rows of logits, plus what entropy and soft-cap need.

    Several blocks of a half type need a float32 sum of the weight's gradient, 4·V·d bytes. Where a single block fits
    into the workspace and those bytes, it is taken: no more memory, and the gradient is written once.
    """
    workspace = int(task.workspace_mb * 2**20)
    if task.implementation == "triton":  # exponentials in the inputs' type, and nothing else
        row, half = hidden.element_size() * weight.shape[0], hidden.element_size() == 2
        spared = 4 * weight.numel() if sums_weight and half else 0
        if hidden.shape[0] * row <= workspace + spared:
            return max(128, hidden.shape[0])
        return max(128, workspace // row // 128 * 128)
    room = workspace if hidden.is_cuda else min(workspace, BLOCK_BYTES)
    buffers = 1 + task.entropy + (task.head.softcap is not None)
    return max(1, room // (accumulation_dtype(hidden.dtype).itemsize * weight.shape[0] * buffers))


def token_gradients(
    loss: TokenLoss, stats: LogProbs, positions: Int[Tensor, "n"], *, learns: bool
) -> tuple[Float[Tensor, ""], Sequence[Tensor | None]]:
    """Return the loss of a block and its gradients to the block's statistics, by autograd over `(n,)` tensors."""
    leaves = [None if s is None else s.detach().requires_grad_(learns) for s in stats]
    with torch.set_grad_enabled(learns):
        losses = loss(LogProbs(*leaves), positions)  # type: ignore[arg-type]
        if losses.shape != positions.shape:
            raise ValueError(
                f"linear_loss_streamed: token_loss_fn must return one loss per token, shape {tuple(positions.shape)}, "
                f"got {tuple(losses.shape)}"
            )
        total = losses.sum()
    if not (learns and total.requires_grad):
        return total.detach(), ()
    inputs = [leaf for leaf in leaves if leaf is not None]
    _refuse_other_leaves(total, inputs)
    return total.detach(), torch.autograd.grad(total, inputs, allow_unused=True)


def _refuse_other_leaves(total: Tensor, inputs: list[Tensor]) -> None:
    """Raise where the loss reaches a tensor that trains and would silently get no gradient."""
    seen, todo = set(), [total.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and not any(leaf is own for own in inputs):
            raise ValueError(
                f"linear_loss_streamed: token_loss_fn depends on a tensor of shape {tuple(leaf.shape)} that requires "
                "grad; only the statistics of its own tokens may. Detach it, or use linear_logprobs"
            )
        todo.extend(parent for parent, _ in node.next_functions)


def _scale(grad: Tensor | None, factor: Float[Tensor, ""], implementation: linear.Implementation) -> None:
    """Multiply in place; half types a slab at a time in float32, since the factor itself may not be rounded."""
    if grad is None:
        return
    if implementation == "triton" and grad.is_cuda:  # its interpreter cuts bfloat16 off where a GPU rounds
        from alignlab.kernels import triton_launch  # late, as in `linear.dispatch`

        triton_launch.scale(grad, factor)
        return
    if grad.dtype == accumulation_dtype(grad.dtype):
        grad.mul_(factor)
        return
    for part in torch.split(grad, 4096):
        part.copy_(part.float().mul_(factor))
