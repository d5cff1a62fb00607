"""One optimizer step of an objective on a case, through the code that trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignlab.batch import Batch
from alignlab.objective import Loss, Objective
from alignlab.testing.compare import close
from alignlab.testing.objective.cases import Case, stats_of
from alignlab.training.step import WholeStep, backward, loss_of, micro_batches, step_constants, whole_step

ALL = 2**31
"""A budget of tokens that no batch reaches."""


@dataclass(frozen=True)
class Outcome:
    """Result of one optimizer step by an objective.

    Args:
        loss: the scalar that is differentiated, units of the whole step divided out.
        gradient: of the loss with respect to each leaf of the case: its statistics.
        metrics: means over the whole step.
        units: of each term.
    """

    loss: Tensor
    gradient: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]
    units: Mapping[str, Tensor]


def run(objective: Objective[Any], case: Case, max_tokens: int = ALL, ranks: int = 1) -> Outcome:
    """Take one optimizer step's loss, gradient and metrics, as the training loop does.

    Args:
        objective: to train by.
        case: the whole batch of the step.
        max_tokens: of one micro-batch; at 1 every unit is a micro-batch of its own.
        ranks: processes that share the step.
    """
    step = whole(objective, case, max_tokens, ranks)
    leaves = case.leaves()
    gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}

    def differentiate(loss: Tensor) -> None:
        if loss.requires_grad:
            # Parts share the cut of their process, so its graph is kept.
            found = torch.autograd.grad(
                loss, list(leaves.values()), allow_unused=True, materialize_grads=True, retain_graph=True
            )
            for name, part in zip(leaves, found, strict=True):
                gradient[name] += part

    loss, metrics = backward(objective, step, stats_of, differentiate)
    return Outcome(loss.value(), gradient, {k: m.value() for k, m in metrics.items()}, step.units)


def whole(objective: Objective[Any], case: Case, max_tokens: int = ALL, ranks: int = 1) -> WholeStep[Any]:
    """The micro-batches of one step over all processes, with its units and constants."""
    if ranks == 1:
        return whole_step(objective, case.batch, stats_of, max_tokens)
    # The same as every process does for itself, with their sums taken here.
    shares = [case.batch.shard(rank, ranks) for rank in range(ranks)]
    cut = [micro_batches(share, max_tokens) for share in shares]
    most = max(len(parts) for parts in cut)
    parts = [part for own, share in zip(cut, shares, strict=True) for part in _filled(own, share, most)]
    units = [objective.units(share) for share in shares]
    added = {name: torch.stack([u[name] for u in units]).sum() for name in units[0]}
    constants = step_constants(objective, parts, stats_of)
    return WholeStep([part.trained().with_constants(constants) for part in parts], added)


def _filled(parts: Sequence[Batch], share: Batch, most: int) -> list[Batch]:
    return [*parts, *[share.select_units([])] * (most - len(parts))]


def loss_on(objective: Objective[Any], case: Case, constants: Mapping[str, Tensor]) -> Loss:
    """The loss of a case as a single micro-batch of a step with the given constants."""
    return loss_of(objective, case.batch.trained().with_constants(constants), stats_of)


def constants_of(objective: Objective[Any], case: Case) -> dict[str, Tensor]:
    """The step-wide means of a case."""
    return step_constants(objective, [case.batch], stats_of)


def same_step(owner: str, found: Outcome, expected: Outcome, what: str) -> None:
    """Two steps have the same loss and gradients, up to rounding."""
    close(owner, found.loss, expected.loss, f"the loss {what}")
    for name, gradient in expected.gradient.items():
        close(owner, found.gradient[name], gradient, f"the gradient of {name} {what}")


def differ(one: Outcome, other: Outcome) -> bool:
    """Whether the loss or a metric differs, or has become NaN."""
    pairs = [(one.loss, other.loss), *((one.metrics[k], other.metrics[k]) for k in one.metrics)]
    return any(not torch.equal(a, b) for a, b in pairs)
