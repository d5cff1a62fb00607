"""The Bradley-Terry likelihood of preferences."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import logsigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import preferred
from alignlab.optimum import Declared, NoneKnown, RewardItself


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
        margin = chosen - rejected
        loss = -logsigmoid(margin) + self.centering * (chosen + rejected).square()
        # A tie is a coin flip, so that an untrained model of equal scores has accuracy one half.
        sides = {"chosen_score": chosen, "rejected_score": rejected}
        return self.loss(batch, loss=loss, metrics={"accuracy": preferred(margin), "margin": margin, **sides})
