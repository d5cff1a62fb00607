"""Online DPO put through the conformance kit, rewarded by a learned reward model."""

from pathlib import Path

from alignlab_dpo import DPO
from alignlab_online_dpo import OnlinePreferences
from regimes import online

from alignlab.artifact import Artifact
from alignlab.testing import Check, conforms_stage, tiny_policy_artifact


def stage() -> OnlinePreferences:
    found: OnlinePreferences = online(
        OnlinePreferences, objective=DPO(0.5), reward=None, loop_steps=2, loop_batch_size=2, loop_save_every=1,
        prompts_per_rollout=4, validation_prompts=1, sampling_max_new_tokens=8,
    )  # fmt: skip
    return found


def inputs(folder: Path) -> dict[str, Artifact]:
    reward = tiny_policy_artifact(folder / "reward", seed=1, scalar_head=True)
    return {"policy": tiny_policy_artifact(folder / "policy"), "reward": reward}


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()
