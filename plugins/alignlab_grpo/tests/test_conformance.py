"""The objectives, advantages and stages put through the conformance kit."""

from pathlib import Path

from alignlab_grpo import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    DrGRPO,
    DynamicSampling,
    GroupRelative,
    KLInReward,
    KLToReference,
    LeaveOneOut,
    Reinforce,
    WhitenedReturns,
)
from regimes import online

from alignlab.artifact import Artifact
from alignlab.objective import WeightedSum
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


@conforms_objective(DrGRPO)
def test_dr_grpo_conforms(check: Check) -> None:
    check()


@conforms_objective(DAPO)
def test_dapo_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: GSPO(clip_low=0.1, clip_high=0.2))
def test_gspo_conforms(check: Check) -> None:
    check()


@conforms_objective(CISPO)
def test_cispo_conforms(check: Check) -> None:
    check()


AT_THE_START = {"every_sequence_counts": "where the policy is the reference, the KL is least, and its gradient 0"}


@conforms_objective(KLToReference, skip=AT_THE_START)
def test_the_unbiased_kl_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: KLToReference("k2", "answer_sum"), skip=AT_THE_START)
def test_k2_conforms(check: Check) -> None:
    check()


@conforms_objective(lambda: WeightedSum({"policy": DAPO(), "kl": KLToReference("k3")}, {"kl": 0.1}))
def test_a_policy_gradient_with_a_kl_conforms(check: Check) -> None:
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


@conforms_advantage(lambda: KLInReward(GroupRelative(scale=False)))
def test_kl_in_reward_conforms(check: Check) -> None:
    check()


@conforms_advantage(WhitenedReturns)
def test_whitened_returns_conform(check: Check) -> None:
    check()


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()


def dynamic() -> DynamicSampling:
    found: DynamicSampling = online(
        DynamicSampling, objective=DAPO(), advantage=GroupRelative(), reward=None, rounds=3, **PORTIONS
    )
    return found


@conforms_stage(dynamic, inputs=inputs)
def test_dynamic_sampling_conforms(check: Check) -> None:
    check()
