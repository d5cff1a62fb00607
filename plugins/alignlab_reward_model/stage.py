"""Reward modelling on preference pairs."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.batch import PreferenceBatch
from alignlab.data.rows import order_at, portions, preference_batch
from alignlab.policy import LearnedReward, previews
from alignlab.seed import fold_in
from alignlab.stage import StageContext
from alignlab.training import PreferenceStage


class RewardModel(PreferenceStage):
    """Fit a scalar head, and the body below it, to preferences. The score is read at the stop token."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **PreferenceStage.INPUTS,
        "policy": frozenset({"policy", "reward_model"}),
    }
    PRODUCES: ClassVar[Kind] = "reward_model"

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Policy with a scalar head, rows of both answers."""
        self._rows, self._validation = self.load(inputs, context)
        if self.policy.score_head is None:
            self.policy.add_score_head(fold_in(self.seed, 1))

    def batch_at(self, step: int) -> PreferenceBatch:
        """`batch_size` pairs."""
        index = order_at(step, len(self._rows), self.loop.batch_size, self.seed)
        return preference_batch([self._rows[i] for i in index])

    def validation_batches(self) -> Sequence[PreferenceBatch]:
        """Held-out pairs."""
        return [preference_batch(part) for part in portions(self._validation, self.loop.batch_size)]

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Its scores of held-out pairs."""
        return previews.scored(self.policy, LearnedReward(self.policy), self.held_out)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Train; `accuracy` is the share of held-out pairs that the published model orders as the raters did."""
        found = super().run(inputs, context)
        return {**found, "accuracy": found["validation_accuracy"], "held_out_pairs": float(len(self._validation))}
