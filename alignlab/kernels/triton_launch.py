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
        if n:
            with on_device_of(self.hidden):
                kernels.slab_gradient[self._grid(n, v)](
                    *self._operands(), targets, peak, up.g, up.a, up.b, out, n, v, self.hidden.shape[1], start,
                    self.head.inner, self.head.outer, ENTROPY=up.b is not None, **self._flags()
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

    def _operands(self) -> tuple[Any, Any, Tensor | None]:
        """Return hidden, weight and bias; the first two by descriptor where the GPU can copy whole tiles."""
        if not self._described():
            return self.hidden, self.weight, self.bias
        from triton.tools.tensor_descriptor import TensorDescriptor

        shapes = [self.blocks.tokens, self.blocks.width], [self.blocks.words, self.blocks.width]
        h, w = (TensorDescriptor.from_tensor(t, s) for t, s in zip((self.hidden, self.weight), shapes, strict=True))
        return h, w, self.bias

    def _described(self) -> bool:
        """Return whether tensor copies by TMA are possible: sm_90, and rows that begin at multiples of 16 bytes."""
        if not self.hidden.is_cuda or torch.cuda.get_device_capability(self.hidden.device) < (9, 0):
            return False
        pitch = self.hidden.shape[1] * self.hidden.element_size()
        return pitch % 16 == 0 and all(t.data_ptr() % 16 == 0 for t in (self.hidden, self.weight))

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


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Make a tensor's GPU the current one: Triton launches there, wherever the tensors are. Nothing on a CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


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
