"""Trains a tiny policy by PPO as one process of several and writes what it learnt; see `test_two_processes.py`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from alignlab_ppo import GAE, PPO, PPOStage
from together import leave
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import Sampling
from alignlab.reward import RewardSource
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.training import AdamW, Cosine, Loop


class Questions(DataSource):
    """Five questions, two held out."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        names = ("ana", "bo", "cy") if split == "train" else ("tea", "rain")
        return [Prompt.user(f"what does {n} like ?") for n in names]


class Tea(RewardSource):
    """One reward unit for every "tea"."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return torch.tensor([float(a.split().count("tea")) for a in answers])


def train(policy: Path, folder: Path, processes: int) -> dict[str, Tensor]:
    """Three buffers of 3 x 4 answers, so that two processes share them unevenly; returns the parameters."""
    stage = PPOStage(
        data=Questions(),
        objective=PPO(),
        advantage=GAE(),
        optimizer=AdamW(lr=1e-3, eps=1e-5, schedule=Cosine(warmup_steps=0)),
        loop=Loop(steps=12, batch_size=6, micro_batch_tokens=40, validate_every=12),
        sampling=Sampling(temperature=0.8, max_new_tokens=5),
        reward=Tea(),
        prompts_per_rollout=3,
        samples_per_prompt=4,
        epochs=2,
    )
    folder = folder / os.environ.get("RANK", "0")
    (folder / "out").mkdir(parents=True)
    (folder / "work").mkdir()
    runtime = Runtime("cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", threads=1)
    stage.run({"policy": Artifact.open(policy)}, StageContext("ppo", folder / "out", folder / "work", runtime))
    modules = stage.modules().items()
    return {f"{m}.{k}": v.detach().clone() for m, module in modules for k, v in module.named_parameters()}


if __name__ == "__main__":
    learnt = train(Path(sys.argv[1]), Path(sys.argv[2]), processes=2)
    torch.save(learnt, Path(sys.argv[2]) / f"{torch.distributed.get_rank()}.pt")
    leave()
