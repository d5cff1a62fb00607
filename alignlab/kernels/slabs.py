"""How the logits of a large vocabulary are cut into slabs, reduced slab by slab, and turned into their gradient.

Axes: N tokens, n tokens of a block, V vocabulary, k columns of a slab, d width of the hidden states.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels.types import LogProbs, accumulation_dtype

SLAB_BYTES = 8 * 2**20  # on a CPU, a slab that stays in the last-level cache between product and softmax
BLOCK_ROWS = 4096  # more tokens than this would leave a slab too narrow for an efficient product
VANISHED = -1e4  # exp of this is 0 in float64 too; clamping there keeps 0 * (-inf) out of the entropy


@dataclass(frozen=True)
class Plan:
    """How a problem is cut: blocks of `rows` tokens by slabs of `columns` of the vocabulary."""

    tokens: int
    vocabulary: int
    rows: int
    columns: int

    def slabs(self) -> Iterator[slice]:
        """Yield the column ranges that cover the vocabulary."""
        for start in range(0, self.vocabulary, self.columns):
            yield slice(start, min(start + self.columns, self.vocabulary))

    def blocks(self) -> Iterator[slice]:
        """Yield the row ranges that cover the tokens."""
        for start in range(0, max(1, self.tokens), self.rows):  # one empty block where there is no token
            yield slice(start, min(start + self.rows, self.tokens))


def plan(hidden: Float[Tensor, "N d"], vocabulary: int, workspace_mb: float | int, buffers: int) -> Plan:
    """Choose blocks and slabs so that `buffers` slabs of logits fit into `workspace_mb` MiB.

    A slab is at least 64 columns wide: narrower products waste more time than they save memory.
    """
    itemsize = accumulation_dtype(hidden.dtype).itemsize
    tokens, width = hidden.shape
    workspace = int(workspace_mb * 2**20)
    slab = workspace if hidden.is_cuda else min(workspace, SLAB_BYTES)
    rows = max(1, min(tokens, BLOCK_ROWS))
    columns = slab // (itemsize * buffers * max(rows, width))  # the slab of the weight may be copied too
    return Plan(tokens, vocabulary, rows, min(max(64, columns - columns % 64), vocabulary))


class Online:
    """Running statistics of every token while the slabs of its logits go by.

    `peak` is the largest logit so far, `total` the sum of exp(z − peak), `chosen` the target's logit and `moment`
    the sum of exp(z − peak)·(z − peak), from which the entropy follows without cancellation.
    """

    def __init__(self, like: Tensor, tokens: int, *, entropy: bool) -> None:
        dtype = accumulation_dtype(like.dtype)
        self.peak = torch.full((tokens,), -torch.inf, dtype=dtype, device=like.device)
        self.total = torch.zeros_like(self.peak)
        self.chosen = torch.zeros_like(self.peak)
        self.moment = torch.zeros_like(self.peak) if entropy else None

    def update(self, rows: slice, z: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
        """Take in one slab of logits, leaving exp(z − peak) in `z`; return what earlier sums were multiplied by."""
        before = self.peak[rows]
        after = torch.maximum(before, z.amax(1))
        finite = after.masked_fill(after == -torch.inf, 0.0)  # every word that this token has met so far is masked
        shift = (before - finite).clamp_(min=VANISHED)
        decay = shift.exp()
        z.sub_(finite[:, None])
        if self.moment is not None:
            x = z.clamp(min=VANISHED)
            slab = x.mul_(z.exp_()).sum(1)
            self.moment[rows] = decay * (self.moment[rows] + shift * self.total[rows]) + slab
        else:
            z.exp_()
        self.total[rows] = decay * self.total[rows] + z.sum(1)
        self.peak[rows] = after
        return decay

    def take_target(self, rows: slice, z: Float[Tensor, "n k"], offset: Int[Tensor, "n"]) -> None:
        """Remember the target's logit for the tokens whose target lies in this slab."""
        inside = (offset >= 0) & (offset < z.shape[1])
        found = z.gather(1, offset.clamp(0, z.shape[1] - 1)[:, None])[:, 0]
        self.chosen[rows] = torch.where(inside, found, self.chosen[rows])

    def finish(self) -> LogProbs:
        """Return the statistics; `chosen − peak` first, so that logits of ±1e4 keep their digits."""
        log_total = self.total.log()
        entropy = None if self.moment is None else log_total - self.moment / self.total
        return LogProbs(self.chosen - self.peak - log_total, self.peak + log_total, entropy)


@dataclass(frozen=True)
class Upstream:
    """Coefficients of the gradient of a logit, per token: dz = e·(a − b·x) + g·onehot, where x = log e.

    With e = exp(z − peak), p = e / total and upstream gradients g, gl, ge of logp, lse and entropy this equals
    `g·(onehot − p) + gl·p − ge·p·(log p + entropy)`, arranged so that a slab costs one exponential and one product.
    """

    g: Float[Tensor, "n"]
    a: Float[Tensor, "n"]
    b: Float[Tensor, "n"] | None

    def __getitem__(self, rows: slice) -> "Upstream":
        """Return the part that belongs to a block of tokens."""
        return Upstream(self.g[rows], self.a[rows], None if self.b is None else self.b[rows])

    def dense(self) -> "Upstream":
        """Return the same in dense memory, which a kernel can index: `.sum()` hands down gradients of stride 0."""
        return Upstream(self.g.contiguous(), self.a.contiguous(), None if self.b is None else self.b.contiguous())


def upstream(grads: Sequence[Tensor | None], total: Tensor, entropy: Tensor | None) -> Upstream:
    """Arrange the upstream gradients of logp, lse and entropy; None, or one that is missing, stands for 0."""
    g, gl, ge = (*grads, None, None, None)[:3]
    g = torch.zeros_like(total) if g is None else g
    a = (-g if gl is None else gl - g) / total
    if ge is None or entropy is None:
        return Upstream(g, a, None)
    return Upstream(g, a - ge * (entropy - total.log()) / total, ge / total)


def gradient(
    x: Float[Tensor, "n k"],
    up: Upstream,
    offset: Int[Tensor, "n"],
    slope: Float[Tensor, "n k"] | None,
    out: Float[Tensor, "n k"],
) -> Float[Tensor, "n k"]:
    """Fill `out` (may be `x`) with the gradient of the products, up to the factor 1 / temperature."""
    factor = up.a[:, None]
    if up.b is not None:
        factor = x.clamp(min=VANISHED).mul_(-up.b[:, None]).add_(factor)
    torch.exp(x, out=out).mul_(factor)
    inside = (offset >= 0) & (offset < x.shape[1])
    out.scatter_add_(1, offset.clamp(0, x.shape[1] - 1)[:, None], (up.g * inside)[:, None])
    return out if slope is None else out.mul_(slope)
