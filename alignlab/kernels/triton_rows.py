"""Blocks of whole rows for `linear_loss_streamed` on a GPU: exponentials stored by Triton, turned into gradients.

Axes: N tokens, n tokens of a block, V vocabulary, d width of the hidden states.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.kernels import rows, slabs, triton_launch, triton_path
from alignlab.kernels.types import Head, LogProbs


class Blocks(rows.Blocks):
    """As `rows.Blocks`, with exponentials in the inputs' type where that keeps log-probabilities in float32."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, size: int) -> None:
        triton_path.check(hidden)
        hidden, weight, bias = triton_path.dense(hidden, weight, bias)
        self.hidden, self.weight, self.bias, self.head = hidden, weight, bias, head
        self.room = torch.empty(size, weight.shape[0], dtype=hidden.dtype, device=hidden.device)

    def statistics(self, block: slice, targets: Int[Tensor, "n"], *, want_entropy: bool) -> LogProbs:
        own = self.hidden[block]
        launch = triton_launch.Launch(own, self.weight, self.bias, self.head, triton_launch.Blocks.of(own))
        self.stored, self.targets, self.launch = self.room[: len(targets)], targets, launch
        self.online, self.peaks = launch.statistics(targets, entropy=want_entropy, store=self.stored)
        stats = self.online.finish()
        self.entropy = stats.entropy
        return stats

    def gradient(self, grads: Sequence[Tensor | None]) -> tuple[Float[Tensor, "n V"], Float[Tensor, "n"] | None]:
        up = slabs.upstream(grads, self.online.total, self.entropy).dense()
        return self.launch.stored_gradient(self.stored, self.targets, self.peaks, self.online, up), None
