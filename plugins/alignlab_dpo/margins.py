"""Other losses of DPO's log-ratios: a margin that is wide enough, and answers that are pushed one by one."""

from dataclasses import dataclass
from typing import ClassVar

from torch import relu, sigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, log_ratio, pair_metrics
from alignlab.optimum import Declared, NoneKnown


@dataclass(frozen=True)
class SLiC(Objective[PreferenceBatch]):
    """Prefer the chosen answer by enough: mean over pairs of `max(0, 1 - beta * margin)`, the hinge loss.

    The margin is DPO's, in nats. SLiC-HF has the policy's own log-probabilities in place of log-ratios, and a
    cross-entropy against drifting; relative to a reference, as in RSO, the reference takes that part.

    Args:
        beta: > 0; from a margin of 1 / beta nats on, a pair costs nothing.

    Source: Zhao et al. 2023, arXiv:2305.10425, eq. 5; relative to a reference as in Liu et al. 2023,
    arXiv:2309.06657 (RSO).
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="a margin of 1 / beta nats is enough")

    def optimum(self) -> Declared:
        """None: a hinge asks for the sign of a preference, not for its strength."""
        return NoneKnown(
            "it asks for 1 / beta nats in favour of the likelier choice of every pair, which do not add up"
        )

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        return self.loss(batch, loss=relu(1 - self.beta * metrics["margin"]), metrics=metrics)


@dataclass(frozen=True)
class APOZero(Objective[PreferenceBatch]):
    """Make chosen answers likelier and rejected ones unlikelier than under the reference, each on its own.

    Mean over pairs of `1 - sigmoid(beta * log_ratio(chosen)) + sigmoid(beta * log_ratio(rejected))`. Unlike DPO it does
    not accept that both fall: use it where chosen answers are better than the policy's own.

    Args:
        beta: scale of the log-ratios, per nat; > 0. About 1 / beta nats from the reference a side is saturated.

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, section 3 (APO-zero).
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the log-ratios")

    def optimum(self) -> Declared:
        """None: its loss is linear in each saturated side."""
        return NoneKnown("an answer that loses more often than it wins goes to probability 0, at no finite log-ratio")

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        chosen, rejected = (sigmoid(self.beta * metrics[f"{side}_log_ratio"]) for side in ("chosen", "rejected"))
        return self.loss(batch, loss=1 - chosen + rejected, metrics=metrics)
