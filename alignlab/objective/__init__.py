"""Objective: tensors in, loss out; what its terms are means over, and how objectives combine."""

from alignlab.objective.combinators import WeightedSum, Wrapped
from alignlab.objective.contract import Loss, Objective, batch_type
from alignlab.objective.elements import Weights, chosen_tokens, pairs, sequences, tokens, units
from alignlab.objective.ratios import log_ratio, pair_metrics, preferred
from alignlab.objective.ties import davidson_loss

__all__ = [
    "Loss",
    "Objective",
    "WeightedSum",
    "Weights",
    "Wrapped",
    "batch_type",
    "chosen_tokens",
    "davidson_loss",
    "log_ratio",
    "pair_metrics",
    "pairs",
    "preferred",
    "sequences",
    "tokens",
    "units",
]
