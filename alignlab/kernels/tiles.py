"""A walk over all tiles of logits, slab by slab and block by block, and the gradients that it leaves behind.

Axes: N tokens, n tokens of a block, V vocabulary, k columns of a slab, d width of the hidden states.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.kernels import products, slabs
from alignlab.kernels.types import Head, accumulation_dtype


class Tile(NamedTuple):
    """A block of tokens by a slab of the vocabulary, with what the tile's products multiply."""

    block: slice
    columns: slice
    hidden: Float[Tensor, "n d"]
    weight: Float[Tensor, "k d"]


@dataclass(frozen=True)
class Problem:
    """One head over a batch of tokens, and how it is cut."""

    hidden: Float[Tensor, "N d"]
    weight: Float[Tensor, "V d"]
    bias: Float[Tensor, "V"] | None
    head: Head
    cut: slabs.Plan

    def tiles(self) -> Iterator[tuple[Tile, Float[Tensor, "n k"]]]:
        """Yield each tile with its logits, in memory that the next one overwrites; slabs outside, blocks inside."""
        dtype, operand = accumulation_dtype(self.hidden.dtype), products.operand_dtype(self.hidden)
        work = torch.empty(self.cut.rows * self.cut.columns, dtype=dtype, device=self.hidden.device)
        for columns in self.cut.slabs():
            weight, bias = self.weight[columns].to(operand), None if self.bias is None else self.bias[columns].to(dtype)
            for block in self.cut.blocks():
                hidden = self.hidden[block].to(operand)
                room = work[: hidden.shape[0] * weight.shape[0]].view(hidden.shape[0], weight.shape[0])
                yield Tile(block, columns, hidden, weight), products.logits(hidden, weight, bias, self.head, room)


class Sums:
    """Gradients of hidden, weight and bias while tiles go by; only what is wanted is computed.

    A slab of the weight's gradient is complete before the next begins, so it is summed in float32 and written once.
    """

    def __init__(self, problem: Problem, want: Sequence[bool]) -> None:
        hidden, weight, bias = problem.hidden, problem.weight, problem.bias
        dtype = accumulation_dtype(hidden.dtype)
        self.problem, self.scale = problem, 1 / problem.head.temperature
        self.hidden = torch.zeros_like(hidden, dtype=dtype) if want[0] else None
        self.weight = torch.empty_like(weight) if want[1] else None
        self.bias = torch.zeros_like(bias, dtype=dtype) if want[2] and bias is not None else None
        self.part: Tensor | None = None

    def add(self, tile: Tile, dz: Float[Tensor, "n k"]) -> None:
        """Take in the gradient of one tile's products, but for the factor 1 / temperature."""
        if self.bias is not None:
            self.bias[tile.columns].add_(dz.sum(0, dtype=self.bias.dtype), alpha=self.scale)
        factor = dz.to(tile.weight.dtype)
        if self.hidden is not None:
            products.accumulate(self.hidden[tile.block], factor, tile.weight, alpha=self.scale)
        if self.weight is not None:
            self._add_weight(self.weight, tile, factor)

    def _add_weight(self, whole: Tensor, tile: Tile, dz: Tensor) -> None:
        """Sum a slab in its own memory where that is exact, else in a float32 copy that is cast at the end."""
        first, last = tile.block.start == 0, tile.block.stop == self.problem.cut.tokens
        slab = whole[tile.columns]
        if first:
            alone = last and dz.dtype == slab.dtype  # a single product, which adds in float32 by itself
            self.part = slab if alone else slab.to(accumulation_dtype(slab.dtype))
        assert self.part is not None  # the first block of a slab has just set it
        products.accumulate(self.part, dz.t(), tile.hidden, beta=0.0 if first else 1.0, alpha=self.scale)
        if last and self.part.dtype != slab.dtype:
            slab.copy_(self.part)

    def finish(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients in the types of what they belong to."""
        hidden = None if self.hidden is None else self.hidden.to(self.problem.hidden.dtype)
        bias = self.problem.bias
        return hidden, self.weight, None if self.bias is None or bias is None else self.bias.to(bias.dtype)
