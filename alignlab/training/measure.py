"""Statistics of a frozen model on a whole batch, computed in parts.

Axes: T tokens.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab import distributed
from alignlab.batch import Batch
from alignlab.runtime import Runtime
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

    A model that is split among processes is gathered meanwhile, so that each may have a batch of its own.

    Args:
        model: on the runtime's device, in evaluation mode.
        batch: on any device.
        runtime: gives device and precision.
        max_tokens: of one forward pass.
        of: name of the statistic.
    """
    needs = frozenset({of})
    with runtime.autocast(), distributed.whole(*([model] if isinstance(model, nn.Module) else [])):
        parts = [model.token_stats(p.to(runtime.device), needs) for p in batch.micro_batches(max_tokens)]
        return torch.cat([part.values[of].cpu() for part in parts])


def measure_together(
    model: GivesStats, batch: Batch, runtime: Runtime, max_tokens: int, of: str = "logp"
) -> Float[Tensor, "T ..."]:
    """As `measure`, of a batch that every process has: each computes its share, and all have the whole.

    The sequences of a unit stand next to each other in it.
    """
    rank, world = distributed.rank(), distributed.world_size()
    if world == 1:
        return measure(model, batch, runtime, max_tokens, of)
    mine = batch.select_units(range(batch.num_units * rank // world, batch.num_units * (rank + 1) // world))
    parts: list[Any] = distributed.gather_objects([measure(model, mine, runtime, max_tokens, of)])
    return torch.cat(parts)
