"""SimPO put through the conformance kit."""

from pathlib import Path

import pytest
from alignlab_simpo import SimPO

from alignlab.artifact import Artifact
from alignlab.testing import (
    Check,
    conforms_objective,
    conforms_stage,
    tiny_policy_artifact,
    tiny_preferences_artifact,
)
from alignlab.training import AdamW, Constant, Loop, PreferenceStage


def stage() -> PreferenceStage:
    return PreferenceStage(
        objective=SimPO(),
        optimizer=AdamW(lr=1e-3, schedule=Constant(warmup_steps=0)),
        loop=Loop(steps=3, batch_size=3, validate_every=3, log_every=1, save_every=1),
    )


def inputs(folder: Path) -> dict[str, Artifact]:
    pairs = tiny_preferences_artifact(folder / "preferences")
    return {"policy": tiny_policy_artifact(folder / "policy"), "preferences": pairs}


@conforms_objective(lambda: SimPO(beta=2.5, gamma=0.8))
def test_objective_conforms(check: Check) -> None:
    check()


@pytest.mark.slow  # the stage is DPO's, which is put through the kit with it
@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()
