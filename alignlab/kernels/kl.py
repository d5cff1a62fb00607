"""`linear_kl`: the exact divergence from a teacher's head, per token, for distillation.

Axes: N tokens, n tokens of a block, V vocabulary, k columns of a slab, d width of the student's hidden states,
t width of the teacher's.
"""

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from alignlab.kernels import products, reference, slabs
from alignlab.kernels.once import once
from alignlab.kernels.prepare import pack
from alignlab.kernels.tiles import Problem, Sums
from alignlab.kernels.types import Head

Direction: TypeAlias = Literal["forward", "reverse"]


def linear_kl(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    teacher_hidden: Float[Tensor, "N t"],
    teacher_weight: Float[Tensor, "V t"],
    bias: Float[Tensor, "V"] | None = None,
    teacher_bias: Float[Tensor, "V"] | None = None,
    *,
    direction: Direction = "forward",
    temperature: float | int = 1.0,
    softcap: float | int | None = None,
    teacher_softcap: float | int | None = None,
    mask: Bool[Tensor, "N"] | None = None,
    workspace_mb: float | int = 256,
    implementation: Literal["reference", "chunked"] | None = None,
) -> Float[Tensor, "N"]:
    """Return each token's Kullback-Leibler divergence between student p and teacher q over the whole vocabulary.

    `forward` is KL(q ‖ p) = Σ_v q_v (log q_v − log p_v), with gradient p − q to the student's logits: it covers the
    teacher. `reverse` is KL(p ‖ q), with gradient p·(log p − log q − KL): it seeks the teacher's modes. In nats,
    differentiable (once) to the student's hidden, weight and bias; the teacher is constant.

    Args:
        hidden, weight, bias, softcap: the student, as in `linear_logprobs`.
        teacher_hidden, teacher_weight, teacher_bias, teacher_softcap: the teacher; its width may differ.
        direction: which of the two distributions the expectation is taken under.
        temperature: what both heads' logits are divided by; > 0. The usual T² factor is left to the caller.
        mask: tokens to score; the others cost nothing and give 0. All by default.
        workspace_mb: MiB that may be used beyond inputs, outputs and gradients.
        implementation: "reference" or "chunked" (the default).

    Raises:
        ValueError: shapes that do not fit, vocabularies that differ, or an unknown direction or implementation.

    Source: Hinton et al. 2015, arXiv:1503.02531 (forward); Gu et al. 2024, arXiv:2306.08543 (reverse).
    """
    _check(weight, teacher_weight, direction, implementation)
    targets = hidden.new_zeros(hidden.shape[0], dtype=torch.long)
    if mask is not None:
        targets.masked_fill_(~mask, -1)
    own = pack(hidden, weight, targets, bias, ignore_index=-1)
    with torch.no_grad():
        other = pack(teacher_hidden, teacher_weight, targets, teacher_bias, ignore_index=-1)
    heads = Head(temperature, softcap), Head(temperature, teacher_softcap)
    with torch.autocast(hidden.device.type, enabled=False):
        student, teacher = (own.hidden, own.weight, own.bias), (other.hidden, other.weight, other.bias)
        if implementation == "reference":
            z, t = reference.logits(*student, heads[0]), reference.logits(*teacher, heads[1])
            return own.restore(_reference(z, t, direction))
        wider = max(own.hidden, other.hidden, key=lambda h: h.shape[1])
        cut = slabs.plan(wider, weight.shape[0], workspace_mb, buffers=4)
        return own.restore(_KL.apply(*student, teacher, heads, cut, direction))  # type: ignore[no-untyped-call]


def _check(weight: Tensor, teacher_weight: Tensor, direction: str, implementation: str | None) -> None:
    if weight.shape[0] != teacher_weight.shape[0]:
        raise ValueError(
            f"linear_kl: student and teacher must share one vocabulary, got {weight.shape[0]} and "
            f"{teacher_weight.shape[0]} rows"
        )
    if direction not in ("forward", "reverse"):
        raise ValueError(f"linear_kl: direction must be forward or reverse, got {direction!r}")
    if implementation not in (None, "reference", "chunked"):
        raise ValueError(f"linear_kl: implementation must be reference, chunked or None, got {implementation!r}")


def _reference(z: Float[Tensor, "N V"], teacher: Float[Tensor, "N V"], direction: Direction) -> Float[Tensor, "N"]:
    """The divergence from whole logits, by plain autograd."""
    log_p, log_q = torch.log_softmax(z, -1), torch.log_softmax(teacher.detach().to(z.dtype), -1)
    log_a, log_b = (log_q, log_p) if direction == "forward" else (log_p, log_q)
    nothing = log_a == -torch.inf  # 0 · log 0 = 0
    ratio = log_a.masked_fill(nothing, 0.0) - log_b.masked_fill(nothing, 0.0)
    return (log_a.exp() * ratio).sum(-1)


class _Pair:
    """Running sums of two heads: their own statistics and the first's expectation of the difference of logits."""

    def __init__(self, like: Tensor, tokens: int) -> None:
        self.first = slabs.Online(like, tokens, entropy=False)
        self.second = slabs.Online(like, tokens, entropy=False)
        self.moment = torch.zeros_like(self.first.total)  # Σ_v exp(a_v − peak)·(a_v − b_v)

    def update(self, block: slice, a: Float[Tensor, "n k"], b: Float[Tensor, "n k"]) -> None:
        """Take in one slab of both heads' logits; both are destroyed."""
        difference = a - b
        decay = self.first.update(block, a)
        self.second.update(block, b)
        slab = difference.masked_fill_(a == 0, 0.0).mul_(a).sum(1)  # 0 · log 0 = 0
        self.moment[block] = (self.moment[block] * decay).masked_fill_(decay == 0, 0.0) + slab

    def finish(self) -> Float[Tensor, "N"]:
        """Return KL(first ‖ second) = E[a − b] − lse_a + lse_b, peaks before logarithms to keep their digits."""
        a, b = self.first, self.second
        return self.moment / a.total - (a.peak - b.peak) - a.total.log() + b.total.log()


class _KL(torch.autograd.Function):
    """The divergence of two heads slab by slab, differentiable once, to the student."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher: tuple[Tensor, Tensor, Tensor | None],
        heads: tuple[Head, Head],
        cut: slabs.Plan,
        direction: Direction,
    ) -> Tensor:
        pair = _Pair(hidden, cut.tokens)
        student = Problem(hidden, weight, bias, heads[0], cut)
        other = Problem(*teacher, heads[1], cut)
        for (tile, z), (_, t) in zip(student.tiles(), other.tiles(), strict=True):
            pair.update(tile.block, *((t, z) if direction == "forward" else (z, t)))
        ctx.heads, ctx.cut, ctx.direction = heads, cut, direction
        first, second = (pair.first, pair.second) if direction == "reverse" else (pair.second, pair.first)
        kl = pair.finish()
        sums = first.peak, first.total, second.peak, second.total
        ctx.save_for_backward(hidden, weight, bias, *teacher, kl, *sums)
        return kl

    @staticmethod
    @once
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *other, kl, peak, total, other_peak, other_total = ctx.saved_tensors
        student = Problem(hidden, weight, bias, ctx.heads[0], ctx.cut)
        teacher = Problem(other[0], other[1], other[2], ctx.heads[1], ctx.cut)
        sums = Sums(student, ctx.needs_input_grad)
        for (tile, z), (_, t) in zip(student.tiles(), teacher.tiles(), strict=True):
            slope = None if student.head.softcap is None else products.slope(z, student.head)
            log_p = z.sub_(peak[tile.block, None]).sub_(total[tile.block, None].log())
            log_q = t.sub_(other_peak[tile.block, None]).sub_(other_total[tile.block, None].log())
            dz = _gradient(log_p, log_q, kl[tile.block], ctx.direction).mul_(g[tile.block, None])
            sums.add(tile, dz if slope is None else dz.mul_(slope))
        return (*sums.finish(), None, None, None, None)


def _gradient(
    log_p: Float[Tensor, "n k"], log_q: Float[Tensor, "n k"], kl: Float[Tensor, "n"], direction: Direction
) -> Float[Tensor, "n k"]:
    """Return the gradient of the divergence to the student's logits; both arguments are destroyed."""
    if direction == "forward":
        return log_p.exp_().sub_(log_q.exp_())
    p = log_p.exp()
    ratio = log_p.sub_(log_q).sub_(kl[:, None]).masked_fill_(p == 0, 0.0)
    return p.mul_(ratio)
