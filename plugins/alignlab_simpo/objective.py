"""The loss of simple preference optimisation."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import logsigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, preferred
from alignlab.optimum import Declared, LengthTilted, NoneKnown


@dataclass(frozen=True)
class SimPO(Objective[PreferenceBatch]):
    """Make the chosen answer likelier per token than the rejected one by a margin; no reference is needed.

    Mean over pairs of `-log sigmoid(beta * (mean_logp(chosen) - mean_logp(rejected)) - gamma)`, where `mean_logp` is
    the mean log-probability of an answer's response tokens, in nats per token.

    Args:
        beta: scale of the difference, per nat and token; > 0. 2 to 10 is usual.
        gamma: wanted margin, in units of the scaled difference; >= 0.

    Source: Meng et al. 2024, arXiv:2405.14734, eq. 6.
    """

    VERSION: ClassVar[str] = "1"
    beta: float = 2.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the difference")
        if self.gamma < 0:
            raise ValueError(f"SimPO: gamma must be >= 0, got {self.gamma}; it is a margin")

    def optimum(self) -> Declared:
        """Without a wanted margin, mean log-probabilities that differ by the utilities over beta."""
        if self.gamma:
            return NoneKnown("a wanted margin moves the optimum by pair, so that no policy meets all of them")
        return LengthTilted(self.beta, from_reference=False)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        likelihood = batch.mean_by_sequence(stats.logp)
        margin = batch.chosen(likelihood) - batch.rejected(likelihood)
        metrics = {"margin": margin, "accuracy": preferred(margin)}
        return self.loss(batch, loss=-logsigmoid(self.beta * margin - self.gamma), metrics=metrics)
