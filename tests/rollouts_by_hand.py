"""Two answers with numbers given for their four response tokens, and what a loss of them comes to."""

from typing import Any

import torch
from torch import Tensor

from alignlab.batch import RolloutBatch
from alignlab.stats import TokenStats

NAN = float("nan")
MASK = [[False, False, True, True, True], [False, True]]


def filled(values: list[float]) -> Tensor:
    """Values of the four response tokens; what is not scored is NaN."""
    mask = torch.tensor([m for row in MASK for m in row])
    return torch.full((7,), NAN, dtype=torch.float64).masked_scatter(mask, torch.tensor(values, dtype=torch.float64))


def answers(advantage: list[float], old: list[float], reference: list[float] | None = None) -> RolloutBatch:
    """An answer of three tokens and one of a single token."""
    batch = RolloutBatch.of([[1, 2, 3, 4, 0], [1, 0]], MASK)
    extras = {"advantage": advantage, "old_logp": old, "reference_logp": old if reference is None else reference}
    return batch.with_tokens(**{k: filled(v) for k, v in extras.items()})


def cost(objective: Any, batch: RolloutBatch, logp: list[float]) -> tuple[float, list[float], dict[str, float]]:
    """Loss, its slope at each response token, and the metrics."""
    leaf = filled(logp).requires_grad_()
    found = objective(TokenStats({"logp": leaf}), batch)
    loss = found.mean(objective.units(batch))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert not gradient[~batch.response_mask].any()
    metrics = {k: float(m.value()) for k, m in found.metrics.items()}
    return float(loss.detach()), gradient[batch.response_mask].tolist(), metrics


OLD = [-1.0, -2.0, -0.5, -1.5]
"""Log-probabilities under the policy that sampled."""
