"""PolicyGradientStage: the online regime of methods that weight each token by its advantage."""

from typing import Any, ClassVar

from alignlab.advantage import Advantage, credited
from alignlab.batch import RolloutBatch
from alignlab.training.online import OnlineStage


class PolicyGradientStage(OnlineStage[RolloutBatch]):
    """Train a policy on its own answers, each token by its advantage (REINFORCE, RLOO, GRPO, ...).

    Args:
        advantage: turns rewards into advantages; run once over each whole buffer.
    """

    VERSION: ClassVar[str] = "1"
    PROVIDES: ClassVar[frozenset[str]] = OnlineStage.PROVIDES | {"advantage"}

    def __init__(self, *, advantage: Advantage, **arguments: Any) -> None:
        self.advantage = advantage
        super().__init__(**arguments)
        self._check_advantage()

    def _check_advantage(self) -> None:
        """Refuse an advantage that could not read this stage's rollouts, before anything is loaded."""
        mine, its = type(self).__name__, type(self.advantage).__name__
        if missing := sorted(self.advantage.reads - self.PROVIDES):
            provides = ", ".join(sorted(self.PROVIDES - {"advantage"}))
            raise ValueError(
                f"{its} reads {', '.join(missing)}, but the rollouts of {mine} carry {provides}; choose another"
            )
        if "group" in self.advantage.reads and self.samples_per_prompt < 2:
            raise ValueError(
                f"{mine}: samples_per_prompt must be >= 2, got {self.samples_per_prompt}; {its} compares the answers "
                f"to one prompt"
            )

    def reads(self) -> frozenset[str]:
        """Extras that the objective and the advantage read."""
        return self.objective.reads | self.advantage.reads

    def reads_beforehand(self) -> frozenset[str]:
        """Extras that the advantage reads; a subclass that makes more of its rollouts may read any."""
        own = type(self).train_on is PolicyGradientStage.train_on
        return self.advantage.reads if own else super().reads_beforehand()

    def train_on(self, rollouts: RolloutBatch, step: int) -> RolloutBatch:
        """The rollouts with their advantages."""
        return credited(self.advantage, rollouts)
