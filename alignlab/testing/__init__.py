"""The conformance kit: small named checks that every plugin can be put through, ours or a stranger's.

    @conforms_objective(lambda: DPO(beta=0.1))
    def test_conforms(check):
        check()

The decorator turns the test into one case a check. A failing check says which rule was broken, with which numbers, and
what to do. Most rules stand for a bug that some widely used framework shipped.

Nothing here is imported while models train. It needs pytest: `pip install alignlab[testing]`.
"""

from alignlab.testing.apply import Check
from alignlab.testing.artifacts import tiny_policy, tiny_policy_artifact, tiny_preferences_artifact
from alignlab.testing.objective import conforms_objective
from alignlab.testing.reward import conforms_reward_source
from alignlab.testing.stage import conforms_stage

__all__ = [
    "Check",
    "conforms_objective",
    "conforms_reward_source",
    "conforms_stage",
    "tiny_policy",
    "tiny_policy_artifact",
    "tiny_preferences_artifact",
]
