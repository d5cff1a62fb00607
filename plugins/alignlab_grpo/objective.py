"""Policy-gradient losses on rollouts that carry advantages.

Axes: T tokens, S sequences.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from alignlab import Loss, Objective, RolloutBatch, TokenStats
from alignlab.objective import sequences
from alignlab.optimum import Declared, PolicyGradient

LOG_RATIO_LIMIT = 20.0
"""Log-ratios beyond this, in nats, are cut before exp: e^20 still squares to a finite float32."""


@dataclass(frozen=True)
class GRPO(Objective[RolloutBatch]):
    """Clipped policy gradient with a KL term in the loss.

    Mean over sequences of the mean over their response tokens of
    `max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)) + beta * k3`, where `k3 = exp(d) - 1 - d` with
    `d = reference_logp - logp`. Its fixed point is *not* pi* ~ pi_ref exp(r / beta): on the policy that sampled, k3 as
    a loss has the gradient of KL(pi_ref || pi), so that over one-token answers it is `beta pi_ref / (lambda - r)`.

    Args:
        clip: how far the ratio may leave 1 before its gradient stops; 0.1 to 0.3 is usual.
        beta: weight of the KL term, per nat; 0 leaves it out of the loss.

    Source: Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, eq. 3 and 4.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "reference_logp", "advantage"})
    per = {"loss": sequences}
    clip: float = 0.2
    beta: float = 0.04

    def __post_init__(self) -> None:
        if self.clip <= 0:
            raise ValueError(f"GRPO: clip must be > 0, got {self.clip}; at 0 nothing could be learnt")
        if self.beta < 0:
            raise ValueError(f"GRPO: beta must be >= 0, got {self.beta}; it is a price")

    def optimum(self) -> Declared:
        """On policy it is the policy gradient with k3 in the loss, averaged within each answer."""
        return PolicyGradient(mean_over_answer=True, beta=self.beta, estimator="k3")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        log_ratio = batch.scored(stats.logp - batch.old_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        away = batch.scored(batch.reference_logp - stats.logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        ratio, k3 = log_ratio.exp(), torch.expm1(away) - away
        advantage = batch.scored(batch.advantage)
        unclipped, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - self.clip, 1 + self.clip)
        loss = torch.maximum(unclipped, clipped) + self.beta * k3
        metrics = {
            "ratio": batch.mean_by_sequence(ratio),
            "clip_fraction": batch.mean_by_sequence((clipped > unclipped).to(ratio.dtype)),
            "k3": batch.mean_by_sequence(k3),
        }
        return self.loss(batch, loss=batch.mean_by_sequence(loss), metrics=metrics)


@dataclass(frozen=True)
class Reinforce(Objective[RolloutBatch]):
    """Plain policy gradient: mean over sequences of the sum over their response tokens of `-A * logp`.

    With an advantage that pays the KL in the reward, its fixed point is pi* ~ pi_ref exp(r / beta). There is no ratio
    to correct for a policy that has moved since it sampled: take one step per buffer (`epochs: 1`, and a
    `loop.batch_size` of all of its answers).

    Source: Williams 1992; for language models Ahmadian et al. 2024, arXiv:2402.14740, eq. 6.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})
    per = {"loss": sequences}

    def optimum(self) -> Declared:
        """The policy gradient, summed over tokens."""
        return PolicyGradient()

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=-batch.sum_by_sequence(batch.scored(batch.advantage) * stats.logp))
