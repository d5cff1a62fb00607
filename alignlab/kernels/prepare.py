"""Prepare the inputs once, before any product: check the arguments, drop ignored tokens, settle masked rows and types.

Axes: N tokens, V vocabulary, d width of the hidden states.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor


class Packed(NamedTuple):
    """The valid tokens of a batch and the head, in one floating type; `rows` is None when every token is valid."""

    hidden: Float[Tensor, "n d"]
    weight: Float[Tensor, "V d"]
    bias: Float[Tensor, "V"] | None
    targets: Int[Tensor, "n"]
    rows: Int[Tensor, "n"] | None
    tokens: int

    def restore(self, packed: Float[Tensor, "n"]) -> Float[Tensor, "N"]:
        """Put per-token values back where they came from, 0 elsewhere."""
        if self.rows is None:
            return packed
        return packed.new_zeros(self.tokens).index_copy(0, self.rows, packed)


def pack(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    targets: Integer[Tensor, "N"],
    bias: Float[Tensor, "V"] | None,
    ignore_index: int,
) -> Packed:
    """Return what the products need and nothing else.

    One small transfer from the device tells whether targets are ignored or out of range and whether rows of the
    vocabulary are masked; a second, where some are ignored, how many are left. Nothing else here makes a GPU wait.

    Raises:
        ValueError: shapes that do not fit.
        IndexError: a target outside the vocabulary that is not `ignore_index`.
    """
    _check_shapes(hidden, weight, targets, bias)
    # Once, before anything compares or indexes: 8 bits cannot hold the ignore_index, and kernels take no strides.
    targets = targets.long().contiguous()
    hidden, weight, bias = _one_type(hidden, weight, bias)
    low, high, least = _facts(targets, weight)
    if least == -math.inf:
        weight, bias = _mask_rows(weight, bias)
    if not low <= ignore_index <= high and low >= 0 and high < weight.shape[0]:
        return Packed(hidden, weight, bias, targets, None, targets.shape[0])
    valid = targets != ignore_index
    outside = valid & ((targets < 0) | (targets >= weight.shape[0]))
    count, wrong = torch.stack([valid.sum(), outside.sum()]).tolist()
    if wrong:
        _refuse(targets, outside, weight.shape[0], ignore_index)
    rows = torch.nonzero_static(valid, size=count)[:, 0]
    return Packed(hidden.index_select(0, rows), weight, bias, targets[rows], rows, targets.shape[0])


def _facts(targets: Tensor, weight: Tensor) -> tuple[float, float, float]:
    """Return the smallest and largest target and the smallest first weight of a row, in one transfer."""
    least = weight.detach()[:, 0].amin()
    if not targets.shape[0]:
        return math.inf, -math.inf, float(least)
    low, high = targets.aminmax()
    if not targets.is_cuda:
        return float(low), float(high), float(least)
    facts: tuple[float, float, float] = tuple(torch.stack([low.double(), high.double(), least.double()]).tolist())
    return facts


def _check_shapes(hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"linear_logprobs: hidden (N, d) and weight (V, d) must share d, got {tuple(hidden.shape)} and "
            f"{tuple(weight.shape)}"
        )
    if not weight.numel():
        raise ValueError(f"linear_logprobs: weight must not be empty, got shape {tuple(weight.shape)}")
    if targets.shape != hidden.shape[:1]:
        raise ValueError(
            f"linear_logprobs: targets must have one index per token, shape {tuple(hidden.shape[:1])}, got "
            f"{tuple(targets.shape)}"
        )
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"linear_logprobs: targets must be integers, got {targets.dtype}; they index the vocabulary")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"linear_logprobs: bias must have one value per row of weight, shape {tuple(weight.shape[:1])}, got "
            f"{tuple(bias.shape)}"
        )


def _one_type(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast as `F.linear` would under autocast; without it, to the wider of the two types."""
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype), bias


def _mask_rows(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Move a −inf row of the weight into the bias: 0 * (-inf) would make the products of the gradient NaN."""
    masked = weight[:, 0] == -torch.inf
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return weight.masked_fill(masked[:, None], 0.0), bias.masked_fill(masked, -torch.inf)


def _refuse(targets: Tensor, outside: Tensor, vocabulary: int, ignore_index: int) -> None:
    first = int(outside.nonzero()[0, 0])
    raise IndexError(
        f"linear_logprobs: target {int(targets[first])} at token {first} is outside the vocabulary of {vocabulary} "
        f"(and is not ignore_index={ignore_index}); {int(outside.sum())} such token(s)"
    )
