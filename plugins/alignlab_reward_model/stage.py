"""Reward modelling on preference pairs."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab import Artifact, Kind, StageContext
from alignlab.policy import LearnedReward, Policy, previews
from alignlab.seed import fold_in
from alignlab.training import PreferenceStage


class RewardModel(PreferenceStage):
    """Fit a scalar head, and the body below it, to preferences. The score is read at the stop token."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **PreferenceStage.INPUTS,
        "policy": frozenset({"policy", "reward_model"}),
    }
    PRODUCES: ClassVar[Kind] = "reward_model"
    DROPOUT: ClassVar[bool] = True

    def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
        """The input `policy`, with a scalar head of small random weights where it has none."""
        policy = super().load_policy(inputs, context)
        if policy.score_head is None:
            policy.add_score_head(fold_in(self.seed, 1))
        return policy

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Scores of held-out pairs."""
        return previews.scored(self.policy, LearnedReward(self.policy), self.held_out)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Train; `accuracy` is the share of held-out pairs that the published model orders as the raters did."""
        found = super().run(inputs, context)
        return {**found, "accuracy": found["validation_accuracy"], "held_out_pairs": float(len(self.held_out_units))}
