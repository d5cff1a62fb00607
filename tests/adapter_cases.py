"""Small stages that train an adapter; as a script, one process of several (see `test_adapters_training`)."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from alignlab_dpo import DPO
from alignlab_online_dpo import OnlinePreferences
from alignlab_ppo import GAE, PPO, PPOStage
from alignlab_raters import Rater
from alignlab_sft import AnswerNLL
from together import leave
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data.records import Document, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import LoRA, Policy, Sampling, low_rank
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import AdamW, AnswerStage, Constant, Loop, PreferenceStage, TrainingStage

ADAPTER = LoRA(r=2, alpha=3.0)
FEW = Sampling(max_new_tokens=6)
BATCH = TokenBatch.of([[1, 5, 9, 12, 3], [2, 7, 4]], [[False, True, True, True, True], [False, True, True]])


class Likes(DataSource):
    """Three answered questions."""

    VERSION: ClassVar[str] = "1"
    NAMES: ClassVar[tuple[str, ...]] = ("ana", "bo", "cy")

    def instructions(self, split: Split) -> Sequence[Example]:
        return [Example(Prompt.user(f"what does {n} like ?"), f"{n} does like tea") for n in self.NAMES]

    def documents(self, split: Split) -> Sequence[Document]:
        return [Document(f"{n} does like {t}") for n in self.NAMES for t in ("tea", "rain", "bread")]

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [example.prompt for example in self.instructions(split)]


def loop(**settings: Any) -> Loop:
    """Four steps, validated after two of them."""
    return Loop(**{"steps": 4, "batch_size": 4, "micro_batch_tokens": 64, "validate_every": 2, **settings})


def settings(**more: Any) -> dict[str, Any]:
    """Optimizer, loop and adapter of a stage."""
    return {"optimizer": AdamW(lr=1e-2, eps=1e-5, schedule=Constant()), "loop": loop(), "adapter": ADAPTER, **more}


def dpo(**more: Any) -> PreferenceStage:
    return PreferenceStage(objective=DPO(beta=0.3), **settings(**more))


def sft(**more: Any) -> AnswerStage:
    return AnswerStage(data=Likes(), objective=AnswerNLL(), **settings(**more))


def ppo() -> PPOStage:
    return PPOStage(
        data=Likes(),
        objective=PPO(),
        advantage=GAE(),
        sampling=FEW,
        prompts_per_rollout=2,
        samples_per_prompt=2,
        validation_prompts=1,
        inputs={"policy": "sft", "reward": "reward_model"},
        **settings(loop=loop(log_every=1, save_every=1, ema=0.5)),
    )


def online() -> OnlinePreferences:
    return OnlinePreferences(
        data=Likes(),
        objective=DPO(),
        sampling=FEW,
        reward=Rater("looks", {"words": 1.0}),
        prompts_per_rollout=2,
        samples_per_prompt=3,
        validation_prompts=1,
        inputs={"policy": "sft"},
        **settings(loop=loop(batch_size=2, log_every=1, save_every=1, keep="last")),
    )


def made(folder: Path, stage: TrainingStage[Any], inputs: Mapping[str, Artifact], **runtime: Any) -> Artifact:
    """What a stage publishes from these inputs."""
    train(folder, stage, inputs, **runtime)
    return Artifact.open(folder / "out")


def train(folder: Path, stage: TrainingStage[Any], inputs: Mapping[str, Artifact], **runtime: Any) -> None:
    """Run a stage in a folder."""
    out, work = folder / "out", folder / "work"
    for part in (out, work):
        part.mkdir(parents=True, exist_ok=True)
    stage.run(inputs, StageContext("adapted", out, work, Runtime(**{"accelerator": "cpu", **runtime})))


def start(folder: Path, **options: Any) -> dict[str, Artifact]:
    """A tiny policy and preferences."""
    policy = tiny_policy_artifact(folder / "policy", **options)
    return {"policy": policy, "preferences": tiny_preferences_artifact(folder / "preferences")}


@torch.no_grad()
def logp(policy: Policy | Artifact | Path, dtype: torch.dtype = torch.float32) -> Tensor:
    """Log-probabilities of a fixed batch, nats."""
    loaded = policy if isinstance(policy, Policy) else Policy.load(policy, dtype)
    return loaded.eval().token_stats(BATCH, frozenset({"logp"})).logp


@torch.no_grad()
def disturb(policy: Policy, seed: int = 0) -> Policy:
    """Stands for training: give the matrices B of the own adapter random weights."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in policy.model.named_parameters():
        if name.endswith(f"lora_B.{low_rank.OWN}.weight"):
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return policy


def saved(policy: Policy, folder: Path) -> Artifact:
    """The policy in a new folder."""
    folder.mkdir()
    policy.save(folder)
    return Artifact.open(folder)


def adapted(base: Artifact, folder: Path, adapter: LoRA = ADAPTER) -> Artifact:
    """An adapter that changes its base, in a new folder."""
    return saved(disturb(Policy.load(base).add_adapter(adapter, seed=1)), folder)


def trainable_names(policy: Policy) -> set[str]:
    """Names of the parameters that are trained."""
    return {name for name, p in policy.named_parameters() if p.requires_grad}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    mine = root / os.environ["RANK"]
    mine.mkdir()
    stage = dpo()
    train(mine, stage, start(mine), devices=2, strategy="ddp", threads=1)
    torch.save({k: v.detach() for k, v in stage.policy.named_parameters()}, mine / "weights.pt")
    leave()
