"""Quantities that many objectives share: log-ratios, the clipped surrogate, losses of labels, metrics of pairs.

Axes: T tokens, S sequences, W units, N elements of any kind.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.batch import Batch, PreferenceBatch, RolloutBatch
from alignlab.stats import TokenStats

LOG_RATIO_LIMIT = 20.0
"""Log-ratios beyond this, in nats, are cut before exp: e^20 still squares to a finite float32."""


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


def log_ratio_to_old(stats: TokenStats, batch: RolloutBatch) -> Float[Tensor, "T"]:
    """`log pi - log pi_old` of each response token, nats, cut at `LOG_RATIO_LIMIT`; 0 on the policy that sampled."""
    return batch.scored(stats.logp - batch.old_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def log_ratio_to_sampler(batch: RolloutBatch) -> Float[Tensor, "T"]:
    """`log pi_old - log pi_sampler` of each response token, nats, cut at `LOG_RATIO_LIMIT`; 0 where both are one."""
    return batch.scored(batch.old_logp - batch.sampler_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def log_ratio_to_reference(stats: TokenStats, batch: Batch) -> Float[Tensor, "T"]:
    """`log pi - log pi_ref` of each response token, nats, cut at `LOG_RATIO_LIMIT`; 0 elsewhere."""
    return batch.scored(stats.logp - batch.reference_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped_surrogate(
    ratio: Float[Tensor, "N"], advantage: Float[Tensor, "N"], low: float, high: float
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """`max(-A * ratio, -A * clamp(ratio, 1 - low, 1 + high))`, and 1 where that has clipped the gradient away.

    Args:
        ratio: probability now over that under the policy that sampled, of tokens or of answers.
        advantage: A, of the same elements.
        low: how far below 1 the ratio may fall before its gradient stops.
        high: how far above 1 it may rise.

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    unclipped, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)
    return torch.maximum(unclipped, clipped), (clipped > unclipped).to(ratio.dtype)


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
