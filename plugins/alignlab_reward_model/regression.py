"""Scores from ratings of single answers.

Axes: W answers, k attributes.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from alignlab import Loss, Objective, TokenBatch, TokenStats
from alignlab.optimum import Declared, RewardItself


def ratings(batch: TokenBatch) -> Float[Tensor, "W k"]:
    """Mean over answers and their ratings: the weight of each rating; 0 where there is none (NaN)."""
    return batch.weight[:, None] * batch.of_unit("ratings").isfinite()


@dataclass(frozen=True)
class ScoreRegression(Objective[TokenBatch]):
    """Score each answer as it was rated: mean over answers and their ratings of `(score - rating)^2`.

    An answer may be rated by several attributes, each of which has a head of its own; one that it was not rated by
    (NaN) teaches nothing. Unlike preferences, ratings fix the constant of each prompt: at the optimum a score is the
    mean rating.

    Source: Wang et al. 2024 (HelpSteer2), arXiv:2406.08673; several attributes: Wang et al. 2024 (ArmoRM),
    arXiv:2406.12845, section 2.1.
    """

    VERSION: ClassVar[str] = "2"
    needs: ClassVar[frozenset[str]] = frozenset({"scores"})
    reads: ClassVar[frozenset[str]] = frozenset({"ratings"})
    per = {"loss": ratings}

    def optimum(self) -> Declared:
        """The utility itself, its constant included."""
        return RewardItself(constant=False)

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        # A NaN must not reach the difference: its gradient would be NaN, whatever its weight.
        wanted = batch.of_unit("ratings").nan_to_num(nan=0.0)
        error = stats.scores - wanted.to(stats.scores.dtype)
        return self.loss(batch, loss=error.square(), metrics={"error": error, "absolute_error": error.abs()})
