"""A case as training starts: the policy is its own reference and its own old self, and nothing is preferred yet."""

import torch
from torch import Tensor

from alignlab.testing.batches import equal_responses
from alignlab.testing.objective.cases import Axis, Case

START_LOGP = -2.0
"""Nats, at every token: below -1, where the gradient of p * log p has another sign than that of log p."""


def at_start(case: Case) -> Case:
    """The case with policy == reference == old policy == sampler, values and scores 0, no margin asked for and no ties.

    Answers of one unit have equally many response tokens, so that their sums and means of log-probabilities are equal
    as well. Advantages and returns are constant over a sequence, of either sign.
    """
    case = Case(equal_responses(case.batch)).fresh()
    index = torch.arange(case.batch.num_sequences)
    strength = 0.5 + (index % 4).double() / 2
    advantage = torch.where(index % 3 == 0, -strength, strength)
    returns = torch.where(index % 2 == 0, strength, -strength)
    constant = dict.fromkeys(("logp", "reference_logp", "old_logp", "sampler_logp"), START_LOGP)
    constant |= {"value": 0.0, "old_value": 0.0, "score": 0.0, "scores": 0.0}
    constant |= {"margin": 0.0, "agreement": 1.0, "probability": 1.0}
    constant |= {"tie": 0.0}  # a tie teaches nothing where both are equal
    varied = {"advantage": case.along(advantage), "returns": case.along(returns)}

    def started(name: str, x: Tensor, axis: Axis) -> Tensor:
        if name in varied and axis == "token":
            return varied[name].to(x.dtype)
        return torch.full_like(x, constant[name]) if name in constant else x

    return case.map(started)


def mirrored(case: Case) -> Case:
    """The case with advantages, rewards and labels of the opposite sign: losses that learn from one side only exist."""

    def turned(name: str, x: Tensor, axis: Axis) -> Tensor:
        if name in ("advantage", "reward"):
            return -x
        return 1 - x if name in ("desirable", "finished") else x

    return case.map(turned)
