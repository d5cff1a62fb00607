"""Small stages of every regime, as one process of several in each mode; see `test_distributed_training.py`.

Folders are `ROOT/CASE/whole-MODE`, `killed-MODE`, `FROM-TO` (killed as FROM, resumed as TO) and `damaged-MODE` (its
checkpoint has a flipped bit); what was learnt is in their `learnt.pt`.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from alignlab_distill import ForwardKL, OnPolicyDistillation
from alignlab_dpo import DPO
from alignlab_grpo import LeaveOneOut, Reinforce
from alignlab_kto import KTO
from alignlab_online_dpo import OnlinePreferences
from alignlab_ppo import GAE, PPO, PPOStage
from regimes import KilledError, Questions, adam, loop, online
from together import leave
from training_cases import stage_of as fixed

from alignlab import distributed
from alignlab.artifact import Artifact
from alignlab.policy import LoRA
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.training import LabelledStage, PolicyGradientStage, TrainingStage
from alignlab.training.checkpoints import LAST

STEPS, KILLED = 4, 3
"""Steps of a run, and those that it has made when it is killed; its checkpoint is of the step before."""
MODES = ("ddp", "fsdp2")
_LOOP = {"loop_steps": STEPS, "loop_validate_every": 2, "loop_save_every": 2, "loop_micro_batch_tokens": 40}


def _fixed(name: str, **more: Any) -> Callable[[], TrainingStage[Any]]:
    return lambda: fixed(name, 64, STEPS, **{"validate_every": 2, "save_every": 2, **more})


def _labelled(**more: Any) -> LabelledStage:
    portions = loop(steps=STEPS, batch_size=5, validate_every=2, micro_batch_tokens=40, save_every=2)
    return LabelledStage(objective=KTO(0.5), optimizer=adam(), loop=portions, data=Questions(), **more)


def _online(kind: Any, size: int, **more: Any) -> Callable[[], TrainingStage[Any]]:
    """Three prompts per buffer, so that two processes share them unevenly; a buffer lasts for several steps."""
    return lambda: online(kind, **_LOOP, loop_batch_size=size, prompts_per_rollout=3, **more)


CASES: Mapping[str, Callable[[], TrainingStage[Any]]] = {
    "pretrain": _fixed("causal_lm"),
    "sft": _fixed("answer_nll", ema=0.7),
    "reward_model": _fixed("bradley_terry"),
    "dpo": _fixed("dpo", keep="last", checkpoint_every=2),
    "ipo": _fixed("ipo"),
    "centred": _fixed("centred"),
    "ppo_ptx": _fixed("ppo_ptx"),
    "kto": _labelled,
    "adapter": lambda: _labelled(adapter=LoRA(r=2, alpha=3.0)),
    "grpo": _online(PolicyGradientStage, 3, objective=Reinforce(), advantage=LeaveOneOut()),
    "online_dpo": _online(OnlinePreferences, 3, objective=DPO(0.5)),
    "ppo": _online(PPOStage, 3, objective=PPO(), advantage=GAE(), epochs=2),
    "distill": _online(OnPolicyDistillation, 3, objective=ForwardKL(), given_share=0.5),
}
"""Every regime, and every part of the loop that processes share."""


def runtime_of(mode: str) -> Runtime:
    """The runtime of a mode; `one` is a single process."""
    return Runtime("cpu") if mode == "one" else Runtime("cpu", devices=2, strategy=mode)


def train(case: str, policy: Path, folder: Path, mode: str, dies: bool = False) -> None:
    """Run a case in a folder, which may hold the checkpoint of a run that was killed."""
    stage = CASES[case]()
    given = {} if hasattr(stage, "kind") else {"policy": Artifact.open(policy)}
    if case == "distill":
        given["teacher"] = Artifact.open(policy.with_name("teacher"))  # else the slope would be noise
    if dies:
        _let_die(stage)
    rank = distributed.rank()
    for part in (f"out-{rank}", "work"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    context = StageContext("case", folder / f"out-{rank}", folder / "work", runtime_of(mode))
    if dies:
        with pytest.raises(KilledError):
            stage.run(given, context)
        return
    metrics = dict(stage.run(given, context))
    modules = stage.modules().items()
    learnt = distributed.full_state({f"{m}.{k}": v.detach() for m, o in modules for k, v in o.named_parameters()})
    if rank == 0:
        torch.save({"learnt": learnt, "metrics": metrics}, folder / "learnt.pt")
    distributed.barrier()


def _let_die(stage: TrainingStage[Any]) -> None:
    batch_at = stage.batch_at

    def dying(step: int) -> Any:
        if step == KILLED:
            raise KilledError
        return batch_at(step)

    stage.batch_at = dying  # type: ignore[method-assign]


def resume(root: Path, case: str, policy: Path, first: str, then: str, damaged: bool = False) -> None:
    """Continue as `then` what was killed as `first`; `damaged`, from a checkpoint with a flipped bit."""
    folder = root / case / (f"damaged-{then}" if damaged else f"{first}-{then}")
    if distributed.rank() == 0:
        shutil.copytree(root / case / f"killed-{first}" / "work", folder / "work")
        if damaged:
            file = folder / "work" / LAST
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    distributed.barrier()
    train(case, policy, folder, then)


if __name__ == "__main__":
    base, root, cases = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    for case in cases:
        for mode in MODES:
            train(case, base, root / case / f"whole-{mode}", mode)
            train(case, base, root / case / f"killed-{mode}", mode, dies=True)
        for pair in [("one", "ddp"), ("one", "fsdp2"), *((a, b) for a in MODES for b in MODES)]:
            resume(root, case, base, *pair)
        for mode in MODES if case == "dpo" else ():
            resume(root, case, base, mode, mode, damaged=True)
        print(f"{case} done", flush=True)
    leave()
