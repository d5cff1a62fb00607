# mypy: disable-error-code="import-untyped,import-not-found"
"""Launching the Triton kernels: block shapes, descriptors, and the sums over tiles that follow.

Axes: N tokens, V vocabulary, d width of the hidden states, T tiles along the vocabulary, k columns of a slab.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import triton_kernels as kernels
from alignlab.kernels.slabs import VANISHED, Online, Upstream
from alignlab.kernels.types import Head

INTERPRETED = not isinstance(kernels.tile_statistics, triton.JITFunction)  # TRITON_INTERPRET=1: runs on a CPU


@dataclass(frozen=True)
class Blocks:
    """Shape of a tile and how it is run: tokens by words, in steps of `width` along the hidden states."""

    tokens: int = 128
    words: int = 256
    width: int = 64
    warps: int = 8
    stages: int = 3
    group: int = 16

    @classmethod
    def of(cls, hidden: Tensor) -> "Blocks":
        """Return the shape for type and GPU."""
        if not hidden.is_cuda:
            return cls(tokens=32, words=64, width=32)  # the interpreter: small shapes must have several tiles
        return cls.of_capability(torch.cuda.get_device_capability(hidden.device), half=hidden.element_size() == 2)

    @classmethod
    def of_capability(cls, capability: tuple[int, int], *, half: bool) -> "Blocks":
        """Return the shape for a compute capability.

        Before sm_90 shared memory may be as small as 100 KB; float32 products run without tensor cores, in registers.
        """
        if capability >= (9, 0):
            return cls() if half else cls(tokens=64, words=64, width=32, warps=4)
        return cls(words=128) if half else cls(tokens=64, words=64, width=32, warps=4)


@dataclass(frozen=True)
class Launch:
    """One head over a batch of tokens, as the kernels see it."""

    hidden: Float[Tensor, "N d"]
    weight: Float[Tensor, "V d"]
    bias: Float[Tensor, "V"] | None
    head: Head
    blocks: Blocks

    def statistics(
        self, targets: Int[Tensor, "N"], *, entropy: bool, store: Float[Tensor, "N V"] | None = None
    ) -> tuple[Online, Float[Tensor, "T N"]]:
        """Return the statistics of every token, and the peak of each of its tiles."""
        n, v, blocks = self.hidden.shape[0], self.weight.shape[0], self.blocks
        tiles = -(-v // blocks.words)
        peaks, totals = (torch.empty(tiles, n, dtype=torch.float32, device=targets.device) for _ in range(2))
        moments = torch.empty_like(totals) if entropy else None
        online = Online(peaks, n, entropy=entropy)
        if n:
            with on_device_of(self.hidden):
                kernels.tile_statistics[self._grid(n, v)](
                    *self._operands(), targets, peaks, totals, moments, online.chosen, store, n, v,
                    self.hidden.shape[1], self.head.inner, self.head.outer, ENTROPY=entropy, STORE=store is not None,
                    **self._flags()
                )  # fmt: skip
            combine(online, peaks, totals, moments)
        return online, peaks

    def gradient(
        self, targets: Int[Tensor, "N"], peak: Float[Tensor, "N"], up: Upstream, start: int, out: Float[Tensor, "N V"]
    ) -> Float[Tensor, "N V"]:
        """Fill `out` with the gradient of the products of a slab that begins at word `start`."""
        n, v = out.shape
        described = self._described() and tma(out)
        room = descriptor(out, self.blocks.tokens, self.blocks.words) if described else out
        if n:
            with on_device_of(self.hidden):
                kernels.slab_gradient[self._programs(n, v)](
                    *self._operands(), targets, peak, up.g, up.a, up.b, room, n, v, self.hidden.shape[1], start,
                    self.head.inner, self.head.outer, ENTROPY=up.b is not None, DESC_DZ=described, **self._flags()
                )  # fmt: skip
        return out

    def stored_gradient(
        self,
        stored: Float[Tensor, "N V"],
        targets: Int[Tensor, "N"],
        peaks: Float[Tensor, "T N"],
        online: Online,
        up: Upstream,
    ) -> Float[Tensor, "N V"]:
        """Turn the exponentials that `statistics` stored into the gradient of the products, in place."""
        n, v = stored.shape
        rows, words = min(8, self.blocks.tokens), self.blocks.words
        if n:
            with on_device_of(stored):
                kernels.stored_gradient[(-(-n // rows), -(-v // words))](
                    stored, targets, peaks, online.peak, online.chosen, up.g, up.a, up.b, n, v, self.head.outer,
                    TILE=words, BM=rows, BN=words, SOFTCAP=self.head.softcap is not None, ENTROPY=up.b is not None
                )  # fmt: skip
        return stored

    def _grid(self, n: int, v: int) -> tuple[int]:
        return (-(-n // self.blocks.tokens) * -(-v // self.blocks.words),)

    def _programs(self, n: int, v: int) -> tuple[int]:
        """Return one program per tile, or one per multiprocessor where loading overlaps with the tile before."""
        (tiles,) = self._grid(n, v)
        if not (self.hidden.is_cuda and self._described()):
            return (tiles,)
        return (min(tiles, torch.cuda.get_device_properties(self.hidden.device).multi_processor_count),)

    def _operands(self) -> tuple[Any, Any, Tensor | None]:
        """Return hidden, weight and bias; the first two by descriptor where the GPU can copy whole tiles."""
        if not self._described():
            return self.hidden, self.weight, self.bias
        blocks = self.blocks
        h, w = descriptor(self.hidden, blocks.tokens, blocks.width), descriptor(self.weight, blocks.words, blocks.width)
        return h, w, self.bias

    def _described(self) -> bool:
        """Return whether the GPU can copy whole tiles of both operands."""
        return tma(self.hidden) and tma(self.weight)

    def _flags(self) -> dict[str, Any]:
        return {
            "BM": self.blocks.tokens,
            "BN": self.blocks.words,
            "BK": self.blocks.width,
            "GROUP": self.blocks.group,
            "BIAS": self.bias is not None,
            "SOFTCAP": self.head.softcap is not None,
            "DESC": self._described(),
            "WIDEN": not self.hidden.is_cuda and self.hidden.dtype == torch.bfloat16,
            "PRECISION": "ieee",
            "num_warps": self.blocks.warps,
            "num_stages": self.blocks.stages,
        }


def tma(matrix: Tensor) -> bool:
    """Return whether TMA can copy tiles of a matrix: sm_90, and rows that begin at multiples of 16 bytes."""
    if not matrix.is_cuda or torch.cuda.get_device_capability(matrix.device) < (9, 0):
        return False
    return matrix.shape[1] * matrix.element_size() % 16 == 0 and matrix.data_ptr() % 16 == 0


def descriptor(matrix: Tensor, rows: int, columns: int) -> Any:
    """Return what a kernel copies tiles of that shape by."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Make a tensor's GPU the current one: Triton launches there, wherever the tensors are. Nothing on a CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def scale(tensor: Tensor, factor: Float[Tensor, ""]) -> None:
    """Multiply a dense tensor in place by a float32 scalar of its GPU; a factor of 1 costs one look at it."""
    with on_device_of(tensor):
        kernels.scaled[(-(-tensor.numel() // 4096),)](tensor, factor.float(), tensor.numel(), BLOCK=4096)


def combine(
    online: Online, peaks: Float[Tensor, "T N"], totals: Float[Tensor, "T N"], moments: Float[Tensor, "T N"] | None
) -> None:
    """Reduce the statistics of tiles to those of tokens, in a fixed order; `totals` and `moments` are destroyed."""
    online.peak = peaks.amax(0)
    finite = online.peak.masked_fill(online.peak == -torch.inf, 0.0)
    shift = (peaks - finite).clamp_(min=VANISHED)
    if moments is not None:
        moments.addcmul_(shift, totals)
    decay = shift.exp_()
    online.total = totals.mul_(decay).sum(0)
    if moments is not None:
        online.moment = moments.mul_(decay).sum(0)
