"""Honest stages, one of every data regime and one that trains nothing, and what they take."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from alignlab_dpo import DPO
from honest_objectives import KTO
from honest_policy_gradients import Reinforce

from alignlab.advantage import Advantage
from alignlab.artifact import Artifact, Kind
from alignlab.batch import RolloutBatch
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import Sampling
from alignlab.reward import RewardSource
from alignlab.stage import Stage, StageContext
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import AdamW, Constant, LabelledStage, Loop, PolicyGradientStage, PreferenceStage

OPTIMIZER = AdamW(lr=1e-2, schedule=Constant())
LOOP = Loop(steps=4, batch_size=4, micro_batch_tokens=64, validate_every=2, log_every=1, save_every=1)


class Honest(Stage):
    """Counts preferences in three portions, and keeps the counts that are done."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"preferences": frozenset({"preferences"})}
    PRODUCES: ClassVar[Kind] = "other"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        rows = list(inputs["preferences"].lines("preferences.jsonl"))
        notes = context.work / "notes.json"
        found: list[float] = json.loads(notes.read_text()) if notes.is_file() else []
        for portion in range(len(found), 3):
            found.append(self.look(rows[portion::3]))
            notes.write_text(json.dumps(found))
            context.tracker.progress(portion + 1, 3, {})
        (context.folder / "counts.json").write_text(json.dumps(found))
        return {"counted": self.summary(found)}

    def look(self, rows: list[dict[str, str]]) -> float:
        """The count of one portion."""
        return float(len(rows))

    def summary(self, found: list[float]) -> float:
        """The stage's metric."""
        return sum(found)


class Prompts(DataSource):
    """Prompts in the words of the tiny tokenizer, two to train on and one held out."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [Prompt.user(f"what does {n} like ?") for n in (("ana", "bo") if split == "train" else ("cy",))]


class Length(RewardSource):
    """Words of an answer."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(len(a.split())) for a in answers])


class Centred(Advantage):
    """Reward less the mean of the buffer."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        reward = rollouts.sequence("reward")
        return rollouts.with_tokens(advantage=rollouts.scored((reward - reward.mean())[rollouts.sequence_id]))


def pairs(kind: type[PreferenceStage] = PreferenceStage) -> PreferenceStage:
    """A stage on preference pairs."""
    return kind(objective=DPO(), optimizer=OPTIMIZER, loop=LOOP)


def labels(kind: type[LabelledStage] = LabelledStage) -> LabelledStage:
    """A stage on labelled answers."""
    return kind(objective=KTO(), optimizer=OPTIMIZER, loop=LOOP, inputs={"preferences": "label"})


def online(kind: type[PolicyGradientStage] = PolicyGradientStage) -> PolicyGradientStage:
    """A stage on its own samples."""
    return kind(
        objective=Reinforce(),
        advantage=Centred(),
        reward=Length(),
        data=Prompts(),
        optimizer=OPTIMIZER,
        loop=replace(LOOP, keep="last"),
        sampling=Sampling(max_new_tokens=12),
        prompts_per_rollout=2,
        samples_per_prompt=4,
        validation_prompts=1,
    )


def given(*names: str) -> Callable[[Path], dict[str, Artifact]]:
    """Writes the named inputs."""
    make = {
        "policy": lambda folder: tiny_policy_artifact(folder / "policy"),
        "preferences": lambda folder: tiny_preferences_artifact(folder / "preferences", notes=True),
    }
    return lambda folder: {name: make[name](folder) for name in names}
