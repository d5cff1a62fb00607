"""GRPO and RLOO put through the conformance kit: their objectives and advantages, and the stage that both train by."""

from pathlib import Path

from alignlab_grpo import GRPO, GroupRelative, LeaveOneOut, Reinforce
from regimes import online

from alignlab.artifact import Artifact
from alignlab.testing import Check, conforms_advantage, conforms_objective, conforms_stage, tiny_policy_artifact
from alignlab.training import PolicyGradientStage

PORTIONS = {"loop_steps": 2, "loop_batch_size": 4, "loop_save_every": 1, "prompts_per_rollout": 2}
PORTIONS |= {
    "samples_per_prompt": 4,
    "validation_prompts": 1,
    "sampling_max_new_tokens": 6,
    "sampling_temperature": 1.0,
}


def stage() -> PolicyGradientStage:
    found: PolicyGradientStage = online(
        PolicyGradientStage, objective=Reinforce(), advantage=LeaveOneOut(), reward=None, **PORTIONS
    )
    return found


def inputs(folder: Path) -> dict[str, Artifact]:
    reward = tiny_policy_artifact(folder / "reward", seed=1, scalar_head=True)
    return {"policy": tiny_policy_artifact(folder / "policy"), "reward": reward}


@conforms_objective(lambda: GRPO(clip=0.1, beta=0.2))
def test_grpo_conforms(check: Check) -> None:
    check()


@conforms_objective(Reinforce)
def test_reinforce_conforms(check: Check) -> None:
    check()


@conforms_advantage(GroupRelative)
def test_group_relative_conforms(check: Check) -> None:
    check()


@conforms_advantage(lambda: GroupRelative(scale=False))
def test_group_relative_in_reward_units_conforms(check: Check) -> None:
    check()


@conforms_advantage(LeaveOneOut)
def test_leave_one_out_conforms(check: Check) -> None:
    check()


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()
