"""Whole rows of logits, a block of tokens at a time: the exact gradient needs three matrix products, not four.

Used where all logits may be kept from forward to backward (`kept`, small problems), and where the gradient is taken in
the forward so that a block need not outlive its turn (`linear_loss_streamed`).

Axes: N tokens, n tokens of a block, V vocabulary, d width of the hidden states.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import products, slabs
from alignlab.kernels.types import Head, LogProbs, accumulation_dtype

BLOCK_BYTES = 8 * 2**20  # a block of logits that stays in the last-level cache between product and softmax
LEAST = 1e-30  # a probability that float32 still holds with all its digits


def softmax(
    hidden: Float[Tensor, "n d"],
    weight: Float[Tensor, "V d"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "n"],
    head: Head,
    out: Float[Tensor, "n V"],
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Fill `out` with probabilities; return (logp, lse).

    The softmax gives its target's log-probability without another pass over `out`, unless that has (nearly) vanished;
    for those tokens, which are few, the logits are made again. (Whether there are any is what a GPU must wait for.)
    """
    products.logits(hidden, weight, bias, head, out)
    at = targets[:, None]
    chosen = out.gather(1, at)[:, 0]
    torch.softmax(out, 1, out=out)
    p = out.gather(1, at)[:, 0]
    logp, lost = p.log(), (p < LEAST).nonzero()[:, 0]
    lse = chosen - logp
    if len(lost):
        z = products.logits(hidden[lost], weight, bias, head, out.new_empty(len(lost), out.shape[1]))
        peak, log_total = z.amax(1), -out[lost].amax(1).log_()  # the largest probability is 1 / Σ exp(z − peak)
        logp[lost] = chosen[lost] - peak - log_total
        lse[lost] = peak + log_total
    return logp, lse


def entropy(p: Float[Tensor, "n V"]) -> Float[Tensor, "n"]:
    """Return −Σ_v p_v log p_v; what has vanished adds 0."""
    found: Tensor = torch.special.entr(p)
    return found.sum(1)


def blocks_of(p: Float[Tensor, "N V"]) -> Iterator[slice]:
    """Yield blocks of tokens that cover all of them."""
    size = max(1, BLOCK_BYTES // (p.itemsize * p.shape[1]))
    for start in range(0, max(1, p.shape[0]), size):
        yield slice(start, min(start + size, p.shape[0]))


def plain(grads: Sequence[Tensor | None], head: Head) -> bool:
    """Return whether only log-probabilities, of a head without soft-cap, have a gradient: the usual case."""
    return head.softcap is None and all(g is None for g in grads[1:])


def less_target(
    p: Float[Tensor, "n V"], targets: Int[Tensor, "n"], g: Float[Tensor, "n"] | None
) -> tuple[Float[Tensor, "n V"], Float[Tensor, "n"]]:
    """Take 1 from each target's probability, in place; return it and what its rows are to be multiplied by.

    With the gradient g of logp, that of the logits is −g·(p − onehot). Its rows are scaled in the narrow factor of each
    product, which saves a pass over the vocabulary.
    """
    minus = p.new_tensor(-1.0).expand(len(targets), 1)
    p.scatter_add_(1, targets[:, None], minus)
    return p, p.new_zeros(len(targets)) if g is None else -g


def gradient(
    p: Float[Tensor, "n V"],
    stats: LogProbs,
    up: slabs.Upstream,
    targets: Int[Tensor, "n"],
    head: Head,
    out: Float[Tensor, "n V"] | None = None,
) -> Float[Tensor, "n V"]:
    """Return the gradient of a block's products, up to the factor 1 / temperature; `out` may be `p`."""
    factor, g = up.a[:, None], up.g
    x = p.log().clamp_(min=slabs.VANISHED) if up.b is not None or head.softcap is not None else None
    if x is not None and up.b is not None:
        factor = factor - up.b[:, None] * x
    out = torch.mul(p, factor, out=out)
    if x is not None and head.softcap is not None:
        out.mul_(products.slope(x.add_(stats.lse[:, None]), head))
        g = g * products.slope(stats.logp + stats.lse, head)  # of a target that vanished, p cannot tell the logit
    return out.scatter_add_(1, targets[:, None], g[:, None])


class Sums:
    """Gradients of hidden, weight and bias while blocks of tokens go by; only what is wanted is computed.

    The weight's is a sum over blocks, so it is held in float32 unless a half type sees a single block on a GPU.
    `cast` is the weight as the products take it, where the caller has it already: on a CPU, a head of its own size.
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
        cast: Tensor | None = None,
    ) -> None:
        dtype = accumulation_dtype(hidden.dtype)
        self.inputs, self.scale, self.fresh = (hidden, weight, bias), 1 / head.temperature, True
        self.operand = products.operand_dtype(hidden)
        self.head = (weight if cast is None else cast).to(self.operand) if want[0] else weight
        self.hidden = torch.empty_like(hidden, dtype=dtype) if want[0] else None
        self.weight = torch.empty_like(weight, dtype=self.operand if single else dtype) if want[1] else None
        self.bias = torch.zeros_like(bias, dtype=dtype) if want[2] and bias is not None else None

    def add(self, rows: slice, dz: Float[Tensor, "n V"], by: Float[Tensor, "n"] | None = None) -> None:
        """Take in the gradient of one block of logits: `dz`, its rows multiplied by `by`."""
        factor = dz.to(self.operand)
        if self.hidden is not None:
            products.accumulate(self.hidden[rows], factor, self.head, beta=0.0, alpha=self.scale)
            if by is not None:
                self.hidden[rows].mul_(by[:, None])
        if self.weight is not None:
            own, beta = self.inputs[0][rows].to(self.operand), 0.0 if self.fresh else 1.0
            own = own if by is None else (own * by[:, None]).to(self.operand)
            products.accumulate(self.weight, factor.t(), own, beta=beta, alpha=self.scale)
        if self.bias is not None:
            total = dz.sum(0, dtype=self.bias.dtype) if by is None else dz.t() @ by.to(dz.dtype)
            self.bias.add_(total, alpha=self.scale)
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
        """Return the statistics of a block of tokens, leaving its probabilities in place."""
        self.p, self.targets = self.room[: len(targets)], targets
        own = self.hidden[block].to(self.operand)
        logp, lse = softmax(own, self.weight, self.bias, targets, self.head, self.p)
        self.found = LogProbs(logp, lse, entropy(self.p) if want_entropy else None)
        return self.found

    def gradient(self, grads: Sequence[Tensor | None]) -> tuple[Float[Tensor, "n V"], Float[Tensor, "n"] | None]:
        """Turn the block that was just seen into the gradient of its products, given those of its statistics.

        Returns:
            The gradient, and what its rows are still to be multiplied by (None: nothing).
        """
        if plain(grads, self.head):
            return less_target(self.p, self.targets, grads[0] if grads else None)
        up = slabs.upstream(grads, torch.ones_like(self.found.lse), self.found.entropy)
        return gradient(self.p, self.found, up, self.targets, self.head, self.p), None
