"""Quantities that many objectives share: log-ratios to a reference, losses of labels, and the metrics of pairs.

Axes: S sequences, W units.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.batch import Batch, PreferenceBatch
from alignlab.stats import TokenStats


def log_ratio(stats: TokenStats, batch: Batch) -> Float[Tensor, "S"]:
    """`log pi(y|x) - log pi_ref(y|x)` of each answer, in nats, summed over its response tokens."""
    return batch.sum_by_sequence(stats.logp - batch.reference_logp.to(stats.logp.dtype))


def mean_log_ratio(stats: TokenStats, batch: Batch) -> Float[Tensor, "S"]:
    """The same per response token: nats per token, so that long answers count no more than short ones."""
    return batch.mean_by_sequence(stats.logp - batch.reference_logp.to(stats.logp.dtype))


def soft_label_loss(logit: Float[Tensor, "W"], label: Float[Tensor, "W"] | float) -> Float[Tensor, "W"]:
    """Cross-entropy `-label log sigmoid(logit) - (1 - label) log sigmoid(-logit)`, finite for every logit.

    Args:
        logit: for the event, nats.
        label: probability of the event. Weights that add up to 1 may also leave 0 to 1, as those of robust losses do.
    """
    return (1 - label) * logit - logsigmoid(logit)


TIE = 1e-6
"""Nats (or reward units) below which a margin is a tie: rounding, not preference, gives it its sign."""


def preferred(margin: Tensor) -> Tensor:
    """1 where a margin is positive, 0 where it is negative, one half where it is a tie up to rounding."""
    return 0.5 + 0.5 * margin.sign() * (margin.abs() > TIE)


def pair_metrics(log_ratio: Float[Tensor, "S"], batch: PreferenceBatch) -> dict[str, Float[Tensor, "W"]]:
    """Margin, accuracy, and how far each side has moved from the reference (likelihood displacement), in nats.

    Args:
        log_ratio: of each answer to the reference; or any score of the answers.
    """
    chosen, rejected = batch.chosen(log_ratio), batch.rejected(log_ratio)
    margin = chosen - rejected
    return {
        "margin": margin,
        "accuracy": preferred(margin),
        "chosen_log_ratio": chosen,
        "rejected_log_ratio": rejected,
    }
