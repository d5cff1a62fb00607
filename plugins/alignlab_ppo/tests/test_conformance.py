"""PPO put through the conformance kit, rewarded by a learned reward model."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from alignlab_ppo import GAE, PPO, PPOStage

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import Sampling
from alignlab.testing import Check, conforms_objective, conforms_stage, tiny_policy_artifact
from alignlab.training import AdamW, Cosine, Loop


class Questions(DataSource):
    """Three questions, one held out."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [Prompt.user(f"what does {n} like ?") for n in (("ana", "bo") if split == "train" else ("cy",))]


def stage() -> PPOStage:
    return PPOStage(
        data=Questions(),
        objective=PPO(),
        advantage=GAE(),
        optimizer=AdamW(lr=1e-3, eps=1e-5, schedule=Cosine(warmup_steps=0)),
        loop=Loop(steps=3, batch_size=4, validate_every=3, log_every=1, save_every=1),
        sampling=Sampling(max_new_tokens=3),
        prompts_per_rollout=2,
        validation_prompts=1,
        samples_per_prompt=4,
        epochs=1,
    )


def inputs(folder: Path) -> dict[str, Artifact]:
    reward = tiny_policy_artifact(folder / "reward", seed=1, scalar_head=True)
    return {"policy": tiny_policy_artifact(folder / "policy"), "reward": reward}


@conforms_objective(lambda: PPO(entropy_coefficient=0.01))
def test_objective_conforms(check: Check) -> None:
    check()


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()
