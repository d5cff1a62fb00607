"""Statistics of a frozen model on a whole batch, computed in parts.

Axes: T tokens, t tokens of one unit.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch
from alignlab.stage import Runtime, Tracker
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


def measure_by_unit(
    model: GivesStats, batches: Iterable[Batch], runtime: Runtime, max_tokens: int, of: str = "logp"
) -> Iterator[Float[Tensor, "t"]]:
    """One statistic per token, see `measure`, as one tensor for each unit of some batches, in order."""
    for batch in batches:
        sizes = torch.bincount(batch.unit[batch.sequence_id], minlength=batch.num_units).tolist()
        yield from measure(model, batch, runtime, max_tokens, of).split(sizes)


def reported(items: Iterable[Tensor], total: int, tracker: Tracker, every: int = 32) -> Iterator[Tensor]:
    """The items, with a report of progress now and then and at the end."""
    for done, item in enumerate(items, start=1):
        yield item
        if done % every == 0 or done == total:
            tracker.progress(done, total, {})
