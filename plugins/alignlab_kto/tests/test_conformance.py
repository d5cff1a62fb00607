"""KTO put through the conformance kit."""

from pathlib import Path

from alignlab_kto import KTO

from alignlab.artifact import Artifact
from alignlab.testing import (
    Check,
    conforms_objective,
    conforms_stage,
    tiny_policy_artifact,
    tiny_preferences_artifact,
)
from alignlab.training import AdamW, Constant, LabelledStage, Loop


def stage() -> LabelledStage:
    return LabelledStage(
        objective=KTO(0.5),
        optimizer=AdamW(lr=1e-3, schedule=Constant(warmup_steps=0)),
        loop=Loop(steps=2, batch_size=4, validate_every=2, log_every=1, save_every=1),
    )


def inputs(folder: Path) -> dict[str, Artifact]:
    pairs = tiny_preferences_artifact(folder / "preferences")
    return {"policy": tiny_policy_artifact(folder / "policy"), "preferences": pairs}


@conforms_objective(lambda: KTO(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7))
def test_objective_conforms(check: Check) -> None:
    check()


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()
