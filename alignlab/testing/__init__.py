"""The conformance kit: small named checks for any plugin.

    @conforms_objective(lambda: DPO(beta=0.1))
    def test_conforms(check):
        check()

The decorator turns the test into one case per check. A failing check says which rule was broken, with which numbers,
and what to do. Most rules stand for a bug that some widely used framework shipped.

Without pytest, `check_objective(DPO(beta=0.1))` and its siblings print the outcomes as a table and return whether no
check failed.

Nothing here is imported while models train. The decorators need pytest: `pip install alignlab[testing]`.
"""

from alignlab.testing.advantage import check_advantage, conforms_advantage
from alignlab.testing.apply import Check
from alignlab.testing.artifacts import (
    tiny_policy,
    tiny_policy_artifact,
    tiny_preferences_artifact,
    tiny_rankings_artifact,
)
from alignlab.testing.batches import ranked_lists
from alignlab.testing.evaluation import check_evaluation, conforms_evaluation
from alignlab.testing.objective import ObjectiveSubject, check_objective, conforms_objective
from alignlab.testing.preference import check_preference, conforms_preference
from alignlab.testing.reward import RewardSubject, check_reward_source, conforms_reward_source
from alignlab.testing.rollout import check_rollout, conforms_rollout
from alignlab.testing.stage import KillingTracker, StageSubject, check_stage, conforms_stage
from alignlab.testing.tracker import TrackerSubject, check_tracker, conforms_tracker

__all__ = [
    "Check",
    "KillingTracker",
    "ObjectiveSubject",
    "RewardSubject",
    "StageSubject",
    "TrackerSubject",
    "check_advantage",
    "check_evaluation",
    "check_objective",
    "check_preference",
    "check_reward_source",
    "check_rollout",
    "check_stage",
    "check_tracker",
    "conforms_advantage",
    "conforms_evaluation",
    "conforms_objective",
    "conforms_preference",
    "conforms_reward_source",
    "conforms_rollout",
    "conforms_stage",
    "conforms_tracker",
    "ranked_lists",
    "tiny_policy",
    "tiny_policy_artifact",
    "tiny_preferences_artifact",
    "tiny_rankings_artifact",
]
