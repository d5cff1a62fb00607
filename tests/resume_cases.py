"""Runs of six steps of every kind of training stage, killed by SIGKILL at every moment and started again.

Run as a script, it reads lines `[CASE, FOLDER]` or `[CASE, FOLDER, FEW]`, and prints what went wrong. It imports
everything once, and forks a process for each run, which makes its steps from there: 0.4 s in place of 6 s.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from alignlab_distill import ForwardKL, OnPolicyDistillation, ReverseKL
from alignlab_dpo import DPO, PlackettLuce
from alignlab_grpo import DAPO, GRPO, DynamicSampling, GroupRelative
from alignlab_kto import KTO
from alignlab_online_dpo import OnlinePreferences
from alignlab_ppo import GAE, PPO, PPOStage
from alignlab_pretrain import CausalLM, Pretrain
from alignlab_reward_model import BradleyTerry, RewardModel
from alignlab_sft import SFT, AnswerNLL
from regimes import online
from test_testing_builtin_stages import Tiny

from alignlab.artifact import Artifact
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import (
    tiny_policy,
    tiny_policy_artifact,
    tiny_preferences_artifact,
    tiny_rankings_artifact,
)
from alignlab.testing.kills import KINDS, Moment, arm
from alignlab.tracking.curves import Curves
from alignlab.training import (
    AdamW,
    AnswerStage,
    Cosine,
    LabelledStage,
    Loop,
    PolicyGradientStage,
    PreferenceStage,
    RankingStage,
    TrainingStage,
)

SHAPE = Llama(layers=1, width=16, heads=2, feedforward=32, context=32, tie_embeddings=False, dropout=0.1)
OPTIMIZER = AdamW(lr=3e-3, eps=1e-5, schedule=Cosine(warmup_steps=2))
SLOW_TO_IMPORT = ("alignlab.training.fit", "alignlab.pipeline.store", "omegaconf", "numpy.ctypeslib")
"""What a stage imports when it runs; imported before anything forks, or each run would import it again."""
MOMENTS = 7
"""How many moments within saves, and around other files, are tried of a case; each case draws others."""
VOLATILE = ("tokens_per_second", "peak_memory_mb")
"""Ends of the names of what measures the machine."""


def loop(**changes: Any) -> Loop:
    """Six steps of several micro-batches each, validated and saved every other one; it may stop early."""
    own: dict[str, Any] = {"steps": 6, "batch_size": 4, "micro_batch_tokens": 40, "validate_every": 2, "log_every": 2}
    return Loop(**{**own, "patience": 2, "save_every": 2, "checkpoint_every": 4, **changes})


def pretrain() -> Pretrain:
    words = TrainTokenizer(kind="word", vocab_size=64)
    settings = {"objective": CausalLM(), "optimizer": OPTIMIZER, "loop": loop(ema=0.5)}
    return Pretrain(data=Tiny(), model=SHAPE, tokenizer=words, **settings)


def sampled(kind: type[Any], **changes: Any) -> Any:
    """Two buffers of three steps, so that most kills are in the middle of one."""
    settings = {"prompts_per_rollout": 4, "samples_per_prompt": 3, "epochs": 1, "optimizer": OPTIMIZER}
    return online(kind, **{**settings, "loop": loop(), "validation_prompts": 3, **changes})


def given(*names: str) -> Callable[[Path], dict[str, Artifact]]:
    """Writes the named inputs; the policy has dropout."""

    def policy(folder: Path) -> Artifact:
        folder.mkdir(parents=True)
        found = tiny_policy(0)
        found.model.config.attention_dropout = 0.1
        found.save(folder)
        return Artifact.open(folder)

    make: dict[str, Callable[[Path], Artifact]] = {
        "policy": policy,
        "teacher": lambda folder: tiny_policy_artifact(folder, seed=1),
        "reward": lambda folder: tiny_policy_artifact(folder, seed=1, scalar_head=True),
        "preferences": tiny_preferences_artifact,
        "rankings": tiny_rankings_artifact,
    }
    return lambda folder: {name: make[name](folder / name) for name in names}


@dataclass(frozen=True)
class Case:
    """A stage and its inputs."""

    make: Callable[[], TrainingStage[Any]]
    inputs: Callable[[Path], Mapping[str, Artifact]]


def offline(kind: type[Any], objective: Any, *names: str, **settings: Any) -> Case:
    """A stage on fixed data."""

    def make() -> Any:
        return kind(objective=objective, optimizer=OPTIMIZER, loop=loop(), **settings)

    return Case(make, given("policy", *names))


CASES: dict[str, Case] = {
    "pretrain": Case(pretrain, given()),
    "sft": offline(SFT, AnswerNLL(), data=Tiny(), replay=0.25),
    "reward_model": offline(RewardModel, BradleyTerry(), "preferences"),
    "dpo": offline(PreferenceStage, DPO(0.3), "preferences"),
    "kto": offline(LabelledStage, KTO(0.5), "preferences"),
    "rankings": offline(RankingStage, PlackettLuce(), "rankings", inputs={"rankings": "rank"}),
    "distill": offline(AnswerStage, ForwardKL(), "teacher", data=Tiny(), inputs={"policy": "sft", "teacher": "dpo"}),
    "grpo": Case(lambda: sampled(PolicyGradientStage, objective=GRPO(), advantage=GroupRelative()), given("policy")),
    "ppo": Case(
        lambda: sampled(
            PPOStage, objective=PPO(), advantage=GAE(), epochs=2, prompts_per_rollout=2, loop=loop(batch_size=2)
        ),
        given("policy"),
    ),
    "online_dpo": Case(
        lambda: sampled(OnlinePreferences, objective=DPO(0.5), loop=loop(batch_size=2)), given("policy")
    ),
    "dynamic": Case(
        lambda: sampled(DynamicSampling, objective=DAPO(), advantage=GroupRelative(), rounds=2), given("policy")
    ),
    "on_policy_distill": Case(
        lambda: sampled(OnPolicyDistillation, objective=ReverseKL(), reward=None, given_share=0.5),
        given("policy", "teacher"),
    ),
}


def run(case: Case, folder: Path, inputs: Path, moment: Moment | None = None) -> None:
    """Run a stage as its process does; it is killed at the moment."""
    bomb = arm(moment, folder)
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tracker = Curves(folder / "out", folder / "work")
    artifacts = {f.name: Artifact.open(f) for f in sorted(inputs.iterdir())}
    context = StageContext("resumed", folder / "out", folder / "work", Runtime("cpu", threads=1), tracker)
    metrics = case.make().run(artifacts, context)
    tracker.close()
    (folder / "out" / "metrics.json").write_text(json.dumps(dict(metrics), sort_keys=True))
    (folder / "counts.json").write_text(json.dumps(bomb.counts))


def forked(case: Case, folder: Path, inputs: Path, moment: Moment | None = None) -> int:
    """Status of a process of its own that runs a stage."""
    shutil.rmtree(folder / "out", ignore_errors=True)  # as the store does with what a killed process had begun
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 1
    try:
        run(case, folder, inputs, moment)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def content(folder: Path) -> dict[str, object]:
    """What a run has published, without what measures the machine."""
    found: dict[str, object] = {}
    for file in sorted(f for f in (folder / "out").rglob("*") if f.is_file()):
        name = file.relative_to(folder).as_posix()
        text = file.read_bytes()
        if file.suffix in (".json", ".jsonl"):
            lines = [json.loads(line) for line in (text.splitlines() if file.suffix == ".jsonl" else [text])]
            found[name] = [_steady(line) for line in lines]
        else:
            found[name] = text
    return found


def _steady(line: Any) -> Any:
    return {k: v for k, v in line.items() if not k.endswith(VOLATILE)} if isinstance(line, dict) else line


def moments(name: str, counts: Mapping[str, int], few: int | None) -> list[Moment]:
    """All moments before and after steps and some of the other kinds, or a few of each."""
    found: list[Moment] = []
    for kind in KINDS:
        numbers = list(range(counts.get(kind, 0)))
        most = few if few is not None else (len(numbers) if kind == "step" else MOMENTS)
        drawn = random.Random(f"{name} {kind}").sample(numbers, min(most, len(numbers)))
        found += [Moment(kind, n) for n in sorted(drawn)]
    return found


def check(name: str, root: Path, few: int | None = None) -> list[str]:
    """Kill a case at every moment; what did not end with the bits of the run that was left alone."""
    case, inputs, wrong = CASES[name], root / "inputs", list[str]()
    inputs.mkdir(parents=True, exist_ok=True)
    if "policy" in case.inputs(inputs):
        Policy.load(inputs / "policy")  # libraries prepare themselves at the first one
    if forked(case, root / "whole", inputs):
        return ["the run that was left alone failed"]
    whole = content(root / "whole")
    asked = moments(name, json.loads((root / "whole" / "counts.json").read_text()), few)
    for moment in asked:
        folder = root / f"{moment.kind}-{moment.number}"
        if forked(case, folder, inputs, moment) != -signal.SIGKILL:
            wrong.append(f"{moment}: was not killed")
        if forked(case, folder, inputs):
            wrong.append(f"{moment}: the same command failed")
        elif (again := content(folder)) != whole:
            names = [n for n in {*again, *whole} if again.get(n) != whole.get(n)]
            wrong.append(f"{moment}: {', '.join(sorted(names))} differ")
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{name}: {len(asked)} kills, {len(wrong)} wrong", file=sys.stderr)
    return wrong


if __name__ == "__main__":
    torch.set_num_threads(1)  # a process with a pool of threads must not fork
    for module in SLOW_TO_IMPORT:
        importlib.import_module(module)
    for line in sys.stdin:
        case, folder, *few = json.loads(line)
        print(json.dumps(check(case, Path(folder), *few)), flush=True)
