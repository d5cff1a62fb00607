"""Imitation of chosen answers: an anchor to add to a loss on pairs."""

from typing import ClassVar

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import chosen_tokens
from alignlab.optimum import Chosen, Declared


class ChosenNLL(Objective[PreferenceBatch]):
    """Imitate the chosen answers: mean over their response tokens of `-log p`.

    As a term of a `WeightedSum` next to DPO it keeps the chosen answer from becoming unlikely while the margin grows.

    Source: Pang et al. 2024, arXiv:2404.19733 (there a mean within each answer first); Dubey et al. 2024,
    arXiv:2407.21783, section 4.1.4.
    """

    VERSION: ClassVar[str] = "1"
    lists: ClassVar[bool] = True
    per = {"loss": chosen_tokens}

    def optimum(self) -> Declared:
        """The distribution of chosen answers."""
        return Chosen()

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return self.loss(batch, loss=-stats.logp)
