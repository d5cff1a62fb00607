"""Statistics of a frozen model on a whole batch, computed in parts.

Axes: T tokens.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch
from alignlab.stage import Runtime
from alignlab.stats import TokenStats


@runtime_checkable
class GivesStats(Protocol):
    """A policy, or another model that gives statistics of tokens (a critic)."""

    def token_stats(self, batch: Batch, needs: frozenset[str]) -> TokenStats:
        """The statistics that `needs` names."""


@torch.no_grad()
def measure(
    model: GivesStats, batch: Batch, runtime: Runtime, max_tokens: int, of: str = "logp"
) -> Float[Tensor, "T ..."]:
    """One statistic of a batch per token or sequence, computed in parts as the training loop would, on the CPU.

    Args:
        model: on the runtime's device, in evaluation mode.
        batch: on any device.
        runtime: gives device and precision.
        max_tokens: of one forward pass.
        of: name of the statistic.
    """
    needs = frozenset({of})
    with runtime.autocast():
        parts = [model.token_stats(p.to(runtime.device), needs) for p in batch.micro_batches(max_tokens)]
        return torch.cat([part.values[of].cpu() for part in parts])
