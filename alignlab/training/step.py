"""Loss and gradient of one optimizer step, over all micro-batches and processes.

The batch of the step is cut into micro-batches by a token budget. Each term of the loss is divided by its units over
the WHOLE step, summed over all micro-batches and processes before anything is differentiated: neither the memory budget
nor the number of processes changes what is learnt. No model, optimizer or Lightning is needed here; the stages, the
conformance kit and the oracles all go through this code.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from alignlab import distributed
from alignlab.batch import Batch
from alignlab.objective import Loss, Objective
from alignlab.stats import Mean, TokenStats

B = TypeVar("B", bound=Batch)

Stats: TypeAlias = Callable[[Any], TokenStats]
"""Gives the statistics of a batch that an objective needs."""


@dataclass(frozen=True)
class WholeStep(Generic[B]):
    """The micro-batches of one optimizer step, and the units of each term over all of them.

    Args:
        parts: to be differentiated, each with the step's constants; as many on every process.
        units: by term, over all processes.
    """

    parts: Sequence[B]
    units: Mapping[str, Tensor]


def whole_step(objective: Objective[B], batch: B, stats: Stats, max_tokens: int) -> WholeStep[B]:
    """Cut this process's batch, and take the units and constants of the whole step.

    Args:
        objective: what is trained by.
        batch: this process's share of the step.
        stats: statistics of a part.
        max_tokens: of one part.
    """
    units = distributed.sum_of(objective.units(batch))
    parts = micro_batches(batch, max_tokens)
    constants = step_constants(objective, parts, stats)
    return WholeStep([part.trained().with_constants(constants) for part in parts], units)


def micro_batches(batch: B, max_tokens: int) -> list[B]:
    """At least one part, and as many on every process; a process that has fewer runs empty ones."""
    parts = batch.micro_batches(max_tokens)
    most = distributed.max_of(len(parts), batch.tokens.device)
    return parts + [batch.select_units([])] * (most - len(parts))


@torch.no_grad()
def step_constants(objective: Objective[B], parts: Sequence[B], stats: Stats) -> dict[str, Tensor]:
    """The objective's means over the whole step and all processes; empty where it asks for none."""
    if not objective.has_step_means:
        return {}
    means: dict[str, Mean] = {}
    for part in parts:
        means = added(means, objective.step_means(stats(part), part))
    return {name: mean.value() for name, mean in distributed.sum_of_means(means).items()}


def backward(
    objective: Objective[B],
    step: WholeStep[B],
    stats: Stats,
    differentiate: Callable[[Tensor], object] = torch.Tensor.backward,
    around: Callable[[bool], contextlib.AbstractContextManager[object]] = lambda last: contextlib.nullcontext(),
) -> tuple[Mean, dict[str, Mean]]:
    """Add up the gradient of the whole step's loss; returns the loss and the metrics over all processes.

    Args:
        objective: what is trained by.
        step: from `whole_step`.
        stats: statistics of a part, differentiable.
        differentiate: called with a scalar per part.
        around: entered around each part's forward and backward pass, told whether it is the last.
    """
    total: Tensor | None = None
    metrics: dict[str, Mean] = {}
    for number, part in enumerate(step.parts):
        with around(number == len(step.parts) - 1):
            loss = loss_of(objective, part, stats)
            scalar = loss.mean(step.units)
            # DDP and FSDP2 average gradients over processes; units are already those of all of them.
            differentiate(scalar * distributed.world_size())
        total = scalar.detach() if total is None else total + scalar.detach()
        metrics = added(metrics, loss.metrics)
    assert total is not None
    summed = distributed.sum_of({"loss": total})["loss"]
    return Mean(summed, torch.ones_like(summed)), distributed.sum_of_means(metrics)


def loss_of(objective: Objective[B], part: B, stats: Stats) -> Loss:
    """The objective's loss of one part.

    Raises:
        ValueError: what it returned is not a `Loss` of the terms that it states.
    """
    loss = objective(stats(part), part)
    name = type(objective).__name__
    if not isinstance(loss, Loss):
        raise ValueError(f"{name}: its call must return self.loss(batch, ...), got {type(loss).__name__}")
    if loss.terms.keys() != objective.per.keys():
        raise ValueError(
            f"{name}: its loss has the terms {sorted(loss.terms)}, and `per` states {sorted(objective.per)}"
        )
    return loss


@torch.no_grad()
def means(objective: Objective[B], batches: Iterable[B], stats: Stats, max_tokens: int) -> dict[str, float]:
    """`loss` and the metrics over all units of some batches; empty where there are none."""
    terms: dict[str, Mean] = {}
    metrics: dict[str, Mean] = {}
    for batch in batches:
        for part in whole_step(objective, batch, stats, max_tokens).parts:
            loss, units = loss_of(objective, part, stats), objective.units(part)
            terms = added(terms, {k: Mean(v.detach(), units[k]) for k, v in loss.terms.items()})
            metrics = added(metrics, loss.metrics)
    if not terms:
        return {}
    found = {k: float(m.value()) for k, m in distributed.sum_of_means(metrics).items()}
    return {"loss": sum(float(m.value()) for m in distributed.sum_of_means(terms).values()), **found}


def added(known: Mapping[str, Mean], more: Mapping[str, Mean]) -> dict[str, Mean]:
    """Means by name, added up."""
    return {k: known[k] + more[k] if k in known else more[k] for k in [*known, *(k for k in more if k not in known)]}
