"""alignlab's side: one task by the framework's own stages; prints one JSON line.

    python side_alignlab.py TASK --work FOLDER --seconds 20

Only where the rows come from is replaced: they are read from the work folder's file, as token ids.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from alignlab_dpo import DPO
from alignlab_grpo import GRPO, GroupRelative, KLToReference
from alignlab_ppo import GAE, PPO, PPOStage
from alignlab_reward_model import BradleyTerry, RewardModel
from alignlab_sft import SFT, AnswerNLL
from jaxtyping import Float
from torch import Tensor
from work import TASKS, Clock, Done, Rows, Task, arguments, until_done

from alignlab import Artifact, Batch, RewardSource, Runtime, StageContext
from alignlab.data.records import Prompt
from alignlab.data.rows import Row
from alignlab.objective import WeightedSum
from alignlab.policy import Policy, Sampling, frozen_copy
from alignlab.training import AdamW, Linear, Loop, PolicyGradientStage, PreferenceStage, TrainingStage, measure


def row(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    """A prompt and its scored answer; of a text without a prompt every token but the first is scored."""
    return Row([*prompt, *answer], [False] * len(prompt) + [True] * len(answer), "row")


class Timed(TrainingStage[Any]):
    """Ticks the clock at the beginning of each optimizer step, and neither validates nor shows samples."""

    clock: Clock

    def batch_at(self, step: int) -> Batch:
        """The stage's own."""
        if self.clock.tick():
            raise Done
        found: Batch = super().batch_at(step)
        return found

    def validate_now(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def samples(self) -> Sequence[Mapping[str, object]]:
        """None."""
        return ()


class TimedSFT(Timed, SFT):
    """Fine-tuning on given rows."""

    rows: Rows

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[list[Row], list[Row]]:
        """The rows of the file."""
        return [row(p, a[0]) for p, a in zip(self.rows.prompts, self.rows.answers, strict=True)], []


class GivenPairs(Timed):
    """Pairs from the file."""

    rows: Rows

    def read(
        self, inputs: Mapping[str, Artifact], context: StageContext
    ) -> tuple[list[tuple[Row, Row]], list[tuple[Row, Row]]]:
        """The rows of the file."""
        return [(row(p, a[0]), row(p, a[1])) for p, a in zip(self.rows.prompts, self.rows.answers, strict=True)], []


class TimedRewardModel(GivenPairs, RewardModel):
    """A reward model on given pairs."""


class TimedDPO(GivenPairs, PreferenceStage):
    """DPO on given pairs; the reference is asked once, before the first step."""


class TimedDPOEachStep(TimedDPO):
    """DPO on given pairs; the reference is asked in every step, as TRL's default has it."""

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Keep the reference at hand, and ask it for nothing beforehand."""
        super().prepare(inputs, context)
        self.reference = frozen_copy(self.policy)

    @property
    def _reads_reference(self) -> bool:
        return False

    def batch_at(self, step: int) -> Batch:
        """The stage's own, with the reference's log-probabilities."""
        batch = super().batch_at(step)
        budget = self.loop.micro_batch_tokens
        return batch.with_tokens(reference_logp=measure(self.reference, batch, self.context.runtime, budget))


class Given:
    """Prompts of the file, as text; its tokenizer has one word per token."""

    on_bad_record = "stop"

    def __init__(self, policy: Policy, rows: Rows) -> None:
        self._prompts = [Prompt.user(policy.tokenizer.decode(p)) for p in rows.prompts]

    def prompts(self, split: str) -> list[Prompt]:
        """The same for every split."""
        return self._prompts


class Distinct(RewardSource):
    """Number of distinct characters: a reward that costs nothing."""

    VERSION = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """See the class."""
        return torch.tensor([float(len(set(answer))) for answer in answers])


class TimedRollouts(Timed):
    """Times a whole buffer, its sampling and all its optimizer steps: what a step of TRL's online trainers is."""

    def batch_at(self, step: int) -> Batch:
        """The stage's own; the clock ticks once per buffer."""
        return super(Timed, self).batch_at(step)

    def sample(self, prompts: Sequence[Prompt], seed: int) -> Any:
        """The stage's own."""
        if self.clock.tick():
            raise Done
        return super().sample(prompts, seed)


class TimedPPO(TimedRollouts, PPOStage):
    """PPO with a critic and a reward model."""


class TimedGRPO(TimedRollouts, PolicyGradientStage):
    """GRPO with a reward that costs nothing."""


def stage_of(task: Task, rows: Rows, clock: Clock, work: Path) -> Any:
    """The stage of a task, and the names of its inputs are those of folders in `work`."""
    optimizer = AdamW(lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, schedule=Linear(0, 0.0))
    never = 10**8
    loop = Loop(10**5, task.batch, validate_every=never, save_every=never, log_every=50, keep="last")
    given = {"optimizer": optimizer, "loop": loop, "inputs": {"policy": "policy"}}
    if task.kind == "sft":
        stage: Any = TimedSFT(objective=AnswerNLL(), data=Given(Policy.load(work / "policy"), rows), **given)
    elif task.kind == "dpo":
        stage = (TimedDPOEachStep if task.reference == "step" else TimedDPO)(objective=DPO(beta=0.1), **given)
    elif task.kind == "reward":
        stage = TimedRewardModel(objective=BradleyTerry(), **given)
    else:
        stage = _online(task, Given(Policy.load(work / "policy"), rows), given)
    stage.rows, stage.clock = rows, clock
    return stage


def _online(task: Task, data: Given, given: dict[str, Any]) -> Any:
    samples = {"prompts_per_rollout": task.batch // task.group, "samples_per_prompt": task.group}
    further = {"data": data, "epochs": task.epochs, "sampling": Sampling(max_new_tokens=task.answer), **samples}
    if task.kind == "ppo":
        given["inputs"] = {**given["inputs"], "reward": "reward"}
        return TimedPPO(objective=PPO(), advantage=GAE(), **given, **further)
    priced = {"policy": GRPO(), "kl": KLToReference(estimator="k3", over="answer_mean")}
    objective = WeightedSum(priced, {"kl": 0.05})
    return TimedGRPO(objective=objective, advantage=GroupRelative(), reward=Distinct(), **given, **further)


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    task, clock = TASKS[given.task], Clock(given.seconds)
    rows = Rows.read(given.work / f"{given.task}.json")
    stage = stage_of(task, rows, clock, given.work)
    inputs = {name: Artifact.open(given.work / name) for name in stage.inputs}
    with tempfile.TemporaryDirectory() as scratch, until_done():
        folders = [Path(scratch, name) for name in ("artifact", "work")]
        for folder in folders:
            folder.mkdir()
        stage.run(inputs, StageContext("benchmark", *folders, Runtime(accelerator="cpu")))
    print(json.dumps(clock.result(task.batch * rows.tokens)))


if __name__ == "__main__":
    main()
