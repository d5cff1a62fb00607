"""Likelihoods of preferences: Bradley-Terry, with a margin, and with ties.

Axes: S sequences, W pairs.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import davidson_loss, preferred
from alignlab.optimum import Declared, NoneKnown, RewardItself


def score_metrics(score: Float[Tensor, "S"], batch: PreferenceBatch) -> dict[str, Float[Tensor, "W"]]:
    """Accuracy, margin and the scores of either side, by pair.

    A tie is a coin flip, so that an untrained model of equal scores has accuracy one half.
    """
    chosen, rejected = batch.chosen(score), batch.rejected(score)
    margin = chosen - rejected
    return {"accuracy": preferred(margin), "margin": margin, "chosen_score": chosen, "rejected_score": rejected}


@dataclass(frozen=True)
class BradleyTerry(Objective[PreferenceBatch]):
    """Score the chosen answer above the rejected one: the mean over pairs of `-log sigmoid(r_chosen - r_rejected)`.

    At the optimum of infinite data, scores differ from the raters' utilities by a constant for each prompt.

    Args:
        centering: weight of `(r_chosen + r_rejected)^2`, which picks that constant so that scores stay near 0.

    Source: Bradley & Terry 1952; Stiennon et al. 2020, arXiv:2009.01325, section 3.4; centering: Eisenstein et al.
    2023, arXiv:2312.09244, appendix B.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    centering: float = 0.0

    def __post_init__(self) -> None:
        if self.centering < 0:
            raise ValueError(f"BradleyTerry: centering must be >= 0, got {self.centering}; it is a penalty")

    def optimum(self) -> Declared:
        """The raters' utility, up to a constant for each prompt."""
        if self.centering:
            return NoneKnown("the centring penalty shrinks scores")
        return RewardItself()

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        chosen, rejected = batch.chosen(stats.score), batch.rejected(stats.score)
        loss = -logsigmoid(chosen - rejected) + self.centering * (chosen + rejected).square()
        return self.loss(batch, loss=loss, metrics=score_metrics(stats.score, batch))


@dataclass(frozen=True)
class MarginBradleyTerry(Objective[PreferenceBatch]):
    """Part the scores further where raters were surer: mean over pairs of `-log sigmoid(r_c - r_r - scale * margin)`.

    The margin is that of the judgement (`Comparison.notes`): a number for "slightly better" to "much better", or the
    difference of two ratings.

    Args:
        scale: >= 0; reward units per unit of the margin. 0 is Bradley-Terry.

    Source: Touvron et al. 2023 (Llama 2), arXiv:2307.09288, eq. 2.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    reads: ClassVar[frozenset[str]] = frozenset({"margin"})
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(
                f"MarginBradleyTerry: scale must be >= 0, got {self.scale}; it turns margins into reward units"
            )

    def optimum(self) -> Declared:
        """None, unless no margin is asked for: the margins of three answers need not add up to scores."""
        if self.scale:
            return NoneKnown("margins move each pair by its own amount, which no scores of the answers can follow")
        return RewardItself()

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        gap = batch.chosen(stats.score) - batch.rejected(stats.score)
        wanted = self.scale * batch.of_unit("margin").to(gap.dtype)
        return self.loss(batch, loss=-logsigmoid(gap - wanted), metrics=score_metrics(stats.score, batch))


@dataclass(frozen=True)
class TiesBradleyTerry(Objective[PreferenceBatch]):
    """Learn from ties too: mean over pairs of Davidson's negative log-likelihood of the choice, or of the tie.

    A tie draws the two scores together; pairs that were decided are Bradley-Terry's as nu goes to 0. Accuracy counts
    tied pairs as well, whose order means nothing.

    Args:
        nu: > 0; how readily raters call a tie: equally good answers tie with probability nu / (1 + nu).

    Source: Davidson 1970, J. Am. Stat. Assoc. 65(329); for reward models of language as DPO-D of Chen et al. 2024,
    arXiv:2409.17431.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"score"})
    reads: ClassVar[frozenset[str]] = frozenset({"tie"})
    nu: float = 1.0

    def __post_init__(self) -> None:
        if self.nu <= 0:
            raise ValueError(f"TiesBradleyTerry: nu must be > 0, got {self.nu}; without ties use bradley_terry")

    def optimum(self) -> Declared:
        """The raters' utility, from raters who tie as often as nu says."""
        return RewardItself(ties=self.nu)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        gap = batch.chosen(stats.score) - batch.rejected(stats.score)
        loss = davidson_loss(gap, batch.of_unit("tie").to(gap.dtype), self.nu)
        return self.loss(batch, loss=loss, metrics=score_metrics(stats.score, batch))
