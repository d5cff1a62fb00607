"""Trains a tiny policy by one method of each regime, as one of several processes; see `test_training_online.py`."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from alignlab_dpo import DPO
from alignlab_grpo import LeaveOneOut, Reinforce
from alignlab_kto import KTO
from alignlab_online_dpo import OnlinePreferences
from regimes import Questions, adam, loop, online, parameters, run
from together import leave
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.runtime import Runtime
from alignlab.training import LabelledStage, PolicyGradientStage

METHODS = ("kto", "rloo", "online_dpo")


def stage_of(method: str) -> Any:
    """Three prompts per buffer, so that two processes share them unevenly."""
    own: dict[str, Any] = {"loop_steps": 4, "loop_validate_every": 4, "loop_micro_batch_tokens": 40}
    if method == "rloo":
        own |= {"objective": Reinforce(), "advantage": LeaveOneOut(), "loop_batch_size": 9}
        return online(PolicyGradientStage, **own, prompts_per_rollout=3)
    if method == "online_dpo":
        return online(OnlinePreferences, **own, objective=DPO(0.5), loop_batch_size=3, prompts_per_rollout=3)
    portions = loop(steps=4, batch_size=5, validate_every=4, micro_batch_tokens=40)
    return LabelledStage(objective=KTO(0.5), optimizer=adam(), loop=portions, data=Questions())


def train(method: str, policy: Path, folder: Path, processes: int) -> dict[str, Tensor]:
    """The parameters that were learnt."""
    stage = stage_of(method)
    strategy = "ddp" if processes > 1 else "auto"
    run(stage, {"policy": Artifact.open(policy)}, folder, Runtime("cpu", devices=processes, strategy=strategy))
    return parameters(stage)


if __name__ == "__main__":
    root, rank = Path(sys.argv[2]), os.environ["RANK"]
    for name in METHODS:
        torch.save(train(name, Path(sys.argv[1]), root / rank / name, processes=2), root / f"{name}-{rank}.pt")
    leave()
