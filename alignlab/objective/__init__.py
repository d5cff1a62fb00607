"""Objective: tensors in, loss out; what its terms are means over, and how objectives combine."""

from alignlab.objective.arguments import check_positive
from alignlab.objective.combinators import OnPolicy, WeightedSum, Wrapped
from alignlab.objective.contract import Loss, Objective, batch_type
from alignlab.objective.elements import Weights, chosen_tokens, pairs, sequences, tokens, units
from alignlab.objective.ratios import (
    clipped_surrogate,
    log_ratio,
    log_ratio_to_old,
    log_ratio_to_reference,
    log_ratio_to_sampler,
    mean_log_ratio,
    pair_metrics,
    preferred,
    soft_label_loss,
)
from alignlab.objective.ties import davidson_loss

__all__ = [
    "Loss",
    "Objective",
    "OnPolicy",
    "WeightedSum",
    "Weights",
    "Wrapped",
    "batch_type",
    "check_positive",
    "chosen_tokens",
    "clipped_surrogate",
    "davidson_loss",
    "log_ratio",
    "log_ratio_to_old",
    "log_ratio_to_reference",
    "log_ratio_to_sampler",
    "mean_log_ratio",
    "pair_metrics",
    "pairs",
    "preferred",
    "sequences",
    "soft_label_loss",
    "tokens",
    "units",
]
