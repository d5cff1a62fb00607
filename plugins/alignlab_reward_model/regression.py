"""Scores from ratings of single answers."""

from dataclasses import dataclass
from typing import ClassVar

from alignlab import Loss, Objective, TokenBatch, TokenStats
from alignlab.objective import units
from alignlab.optimum import Declared, RewardItself


@dataclass(frozen=True)
class ScoreRegression(Objective[TokenBatch]):
    """Score each answer as it was rated: mean over answers of `(score - rating)^2`, in squared units of the rating.

    Unlike preferences, ratings fix the constant of each prompt: at the optimum the score is the mean rating.

    Source: Wang et al. 2024 (HelpSteer2), arXiv:2406.08673, section 4.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    reads: ClassVar[frozenset[str]] = frozenset({"rating"})
    per = {"loss": units}

    def optimum(self) -> Declared:
        """The utility itself, its constant included."""
        return RewardItself(constant=False)

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        error = stats.score - batch.of_unit("rating").to(stats.score.dtype)
        return self.loss(batch, loss=error.square(), metrics={"error": error, "absolute_error": error.abs()})
