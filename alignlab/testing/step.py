"""What a training stage does with an objective in one optimizer step, without a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignlab.objective import Objective
from alignlab.stats import Mean
from alignlab.testing.cases import Case


@dataclass(frozen=True)
class Outcome:
    """What one optimizer step would see of an objective.

    Args:
        loss: the scalar that is differentiated, units of the whole step divided out.
        gradient: of the loss with respect to each statistic.
        metrics: means over units.
        units: of each term.
    """

    loss: Tensor
    gradient: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]
    units: Mapping[str, Tensor]


def run(objective: Objective[Any], whole: Case, parts: Sequence[Case] | None = None) -> Outcome:
    """Do what a training stage does with the parts (micro-batches, over all processes) of one optimizer step."""
    parts = [whole] if parts is None else parts
    units = _added([objective.units(part.batch) for part in parts])
    context = statistic(objective, parts)
    losses = [objective(part.stats(), part.batch, context) for part in parts]
    scalar = torch.stack([loss.mean(units) for loss in losses]).sum()
    leaves = dict(whole.now)
    found = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True, materialize_grads=True)
    metrics: dict[str, Mean] = {}
    for loss in losses:
        metrics |= {k: metrics[k] + m if k in metrics else m for k, m in loss.metrics.items()}
    gradient = dict(zip(leaves, found, strict=True))
    return Outcome(scalar.detach(), gradient, {k: m.value() for k, m in metrics.items()}, units)


def statistic(objective: Objective[Any], parts: Sequence[Case]) -> Tensor | None:
    """The mean over the whole step that the objective asks for."""
    with torch.no_grad():
        means = [m for m in (objective.statistic(p.stats(), p.batch) for p in parts) if m is not None]
    return sum(means[1:], means[0]).value() if means else None


def _added(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].double() for part in parts]).sum() for name in parts[0]}
