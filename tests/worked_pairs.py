"""A preference pair small enough to be worked out on paper, and what an objective makes of it."""

import torch
from torch import Tensor

from alignlab.batch import PreferenceBatch
from alignlab.objective import Objective
from alignlab.stats import TokenStats

NAN = float("nan")
CHOSEN, REJECTED = [-1.0, -2.0], [-5.0]
"""Nats: log-probabilities of the tokens of the chosen and of the rejected answer, -3 and -5 in sum."""
FROZEN = [-1.5, -2.5], [-4.0]
"""Those of the reference. Log-ratios are 1 and -1, the margin 2 nats; per token 0.5 and -1, and 1.5."""


def pair(**notes: float) -> PreferenceBatch:
    """The pair, with its reference; what is not scored is NaN."""
    batch = PreferenceBatch.of([[1, 2, 3], [1, 4]], [[False, True, True], [False, True]])
    batch = batch.with_tokens(reference_logp=flat(*FROZEN))
    return batch.with_units(**{name: torch.tensor([note]) for name, note in notes.items()})


def flat(*answers: list[float]) -> Tensor:
    """Values of the tokens of some answers, each after a prompt of one token."""
    return torch.tensor([x for answer in answers for x in (NAN, *answer)], dtype=torch.float64)


def cost(
    objective: Objective[PreferenceBatch], batch: PreferenceBatch, logp: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics at the pair's log-probabilities, or at others."""
    stats = TokenStats({"logp": flat(CHOSEN, REJECTED) if logp is None else logp})
    found = objective(stats, batch)
    return found.mean(objective.units(batch)), {k: float(m.value()) for k, m in found.metrics.items()}


def slopes(objective: Objective[PreferenceBatch], batch: PreferenceBatch) -> list[float]:
    """Slope of the loss in the log-probability of each token of the pair."""
    logp = flat(CHOSEN, REJECTED).requires_grad_()
    (found,) = torch.autograd.grad(cost(objective, batch, logp)[0], logp)
    return [float(x) for x in found]
