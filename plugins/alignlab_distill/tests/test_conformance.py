"""Distillation put through the conformance kit."""

from pathlib import Path

from alignlab_distill import ForwardKL, OnPolicyDistillation, ReverseKL
from regimes import Questions, adam, loop, online

from alignlab.artifact import Artifact
from alignlab.batch import Batch
from alignlab.objective import Objective, WeightedSum
from alignlab.testing import Check, conforms_objective, conforms_stage, tiny_policy_artifact
from alignlab.training import AnswerStage


def stage() -> AnswerStage:
    portions = loop(steps=2, batch_size=4, save_every=1)
    return AnswerStage(data=Questions(), objective=ForwardKL(), optimizer=adam(), loop=portions)


def on_policy() -> OnPolicyDistillation:
    found: OnPolicyDistillation = online(
        OnPolicyDistillation, objective=ReverseKL(), reward=None, given_share=0.5, loop_steps=3, loop_batch_size=4,
        loop_save_every=1, prompts_per_rollout=4, samples_per_prompt=2, validation_prompts=2,
    )  # fmt: skip
    return found


def inputs(folder: Path) -> dict[str, Artifact]:
    teacher = tiny_policy_artifact(folder / "teacher", seed=4)
    return {"policy": tiny_policy_artifact(folder / "policy"), "teacher": teacher}


@conforms_objective(ForwardKL)
def test_forward_kl_conforms(check: Check) -> None:
    check()


@conforms_objective(ReverseKL)
def test_reverse_kl_conforms(check: Check) -> None:
    check()


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()


def mixed() -> Objective[Batch]:
    return WeightedSum({"forward": ForwardKL(), "reverse": ReverseKL()}, {"forward": 0.3})


@conforms_objective(mixed)
def test_a_mixture_conforms(check: Check) -> None:
    check()


@conforms_stage(on_policy, inputs=inputs)
def test_on_policy_distillation_conforms(check: Check) -> None:
    check()
