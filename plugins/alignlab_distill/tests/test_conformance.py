"""Distillation put through the conformance kit."""

from pathlib import Path

from alignlab_distill import ForwardKL, ReverseKL
from regimes import Questions, adam, loop

from alignlab.artifact import Artifact
from alignlab.testing import Check, conforms_objective, conforms_stage, tiny_policy_artifact
from alignlab.training import AnswerStage


def stage() -> AnswerStage:
    portions = loop(steps=2, batch_size=4, save_every=1)
    return AnswerStage(data=Questions(), objective=ForwardKL(), optimizer=adam(), loop=portions)


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
