"""DPO with other weights: of tokens within an answer, and of pairs within a step."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import logsigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, log_ratio, mean_log_ratio, pair_metrics
from alignlab.optimum import Declared, LengthTilted, Tilted


@dataclass(frozen=True)
class LengthNormalizedDPO(Objective[PreferenceBatch]):
    """DPO whose log-ratios are means over response tokens, so that a longer answer has no larger one by its length.

    Mean over pairs of `-log sigmoid(beta * margin)`, with the margin in nats per token.

    Args:
        beta: scale of the margin, per nat and token; > 0. 2 to 10 is usual: it scales a mean, DPO's scales a sum.

    Source: Lambert et al. 2024, arXiv:2411.15124, section 5 (Tulu 3, with beta = 5).
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 5.0

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin")

    def optimum(self) -> Declared:
        """Log-ratios per token that differ by the utilities over beta."""
        return LengthTilted(self.beta, from_reference=True)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(mean_log_ratio(stats, batch), batch)
        return self.loss(batch, loss=-logsigmoid(self.beta * metrics["margin"]), metrics=metrics)


@dataclass(frozen=True)
class WPO(Objective[PreferenceBatch]):
    """DPO that counts each pair by how likely the policy is to give its answers, as if they were its own samples.

    Mean over pairs of `-weight * log sigmoid(beta * margin)`. The weight is the product of both answers' probabilities
    per token, `exp(mean_logp(chosen) + mean_logp(rejected))`, without gradient. It is below 1, so that steps are
    smaller than DPO's.

    Left out: the paper's weight alignment, which divides every token's probability by the one that is to be expected of
    a sampled token.

    Args:
        beta: price of leaving the reference, per nat; > 0.

    Source: Zhou et al. 2024, arXiv:2406.11827, section 3.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin")

    def optimum(self) -> Declared:
        """DPO's: a policy that meets every pair's probability meets it at every weight."""
        return Tilted(self.beta)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        likelihood = batch.mean_by_sequence(stats.logp.detach())
        weight = (batch.chosen(likelihood) + batch.rejected(likelihood)).exp()
        loss = -weight * logsigmoid(self.beta * metrics["margin"])
        return self.loss(batch, loss=loss, metrics={**metrics, "weight": weight})
