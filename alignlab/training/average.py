"""Exponential moving average of the weights, which is validated and published in place of the trained ones."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from alignlab import distributed


class WeightAverage(nn.Module):
    """Moving average of some weights: `a_t = decay a_(t-1) + (1 - decay) w_t` after step t, from `a_0 = w_0`.

    It starts from the initial weights and is not corrected for them: after t steps they have the weight `decay^t`. It
    is held in float32 (float64 where the weights are) as buffers, so that it is in every checkpoint.

    Args:
        weights: before the first step.
        decay: in (0, 1); 1 / (1 - decay) steps are remembered.

    Source: Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4); of policies, Ramé et al. 2024, arXiv:2406.16768.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        super().__init__()
        self.decay = decay
        for number, weight in enumerate(weights):
            wide = torch.promote_types(weight.dtype, torch.float32)
            self.register_buffer(f"weight_{number}", weight.detach().to(wide, copy=True))

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor]) -> None:
        """Take the weights after a step into the average."""
        for mine, weight in self._pairs(weights):
            mine.lerp_(weight.to(mine.dtype), 1 - self.decay)

    @contextlib.contextmanager
    def in_place_of(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """The weights are the average within, and afterwards what they were, to the bit."""
        own = [weight.detach().clone() for weight in weights]
        self.copy_to(weights)
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(weights, own, strict=True):
                    weight.copy_(before)

    @torch.no_grad()
    def copy_to(self, weights: Sequence[Tensor]) -> None:
        """Make the weights the average."""
        for mine, weight in self._pairs(weights):
            weight.copy_(mine)

    def split_as(self, weights: Sequence[Tensor]) -> None:
        """Keep the part of the average that belongs to this process's part of the weights, which are split by now."""
        for name, (mine, weight) in zip(list(self._buffers), self._pairs(weights), strict=True):
            self.register_buffer(name, distributed.placed_as(mine, weight))

    def _pairs(self, weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.buffers(), weights, strict=True))
