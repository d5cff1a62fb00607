"""Objective: tensors in, loss out; what its terms are means over, and how objectives combine."""

from alignlab.objective.combinators import WeightedSum, Wrapped
from alignlab.objective.contract import Loss, Objective, batch_type
from alignlab.objective.elements import Weights, chosen_tokens, pairs, sequences, tokens, units
from alignlab.objective.ratios import (
    clipped_surrogate,
    log_ratio,
    log_ratio_to_old,
    log_ratio_to_reference,
    pair_metrics,
    preferred,
)

__all__ = [
    "Loss",
    "Objective",
    "WeightedSum",
    "Weights",
    "Wrapped",
    "batch_type",
    "chosen_tokens",
    "clipped_surrogate",
    "log_ratio",
    "log_ratio_to_old",
    "log_ratio_to_reference",
    "pair_metrics",
    "pairs",
    "preferred",
    "sequences",
    "tokens",
    "units",
]
