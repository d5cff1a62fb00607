"""What tests of the data regimes share: a small data source, a reward, stages of a few steps, a kill, a tracker."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import torch
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.config.check import parse
from alignlab.data.records import Example, Labelled, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.pipeline.plan import Step, plan
from alignlab.policy import Policy, Sampling
from alignlab.reward import RewardSource
from alignlab.runtime import Runtime
from alignlab.stage import NullTracker, StageContext
from alignlab.training import AdamW, Constant, Loop, OnlineStage, TrainingStage

S = TypeVar("S", bound=TrainingStage[Any])


class Questions(DataSource):
    """Nine questions in the words of the tiny tokenizer, the last three held out; tea is a good answer."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        asked = [Prompt.user(f"what does {n} {v} ?") for n in ("ana", "bo", "cy") for v in ("like", "think", "not")]
        return asked[:6] if split == "train" else asked[6:]

    def instructions(self, split: Split) -> Sequence[Example]:
        answers = ("tea", "rain and bread", "i think tea")
        rows = enumerate(self.prompts(split))
        return [Example(p, answers[n % 3], source=f"{split} {n}") for n, p in rows]

    def labelled(self, split: Split) -> Sequence[Labelled]:
        answers = (("tea", True), ("rain and rain i think", False), ("tea or bread", True))
        rows = [(n, p, *a) for n, p in enumerate(self.prompts(split)) for a in answers[: 2 + n % 2]]
        return [Labelled(p, text, good, f"{split} {n}") for n, p, text, good in rows]


class Tea(RewardSource):
    """One reward unit for every "tea", less a tenth for every other word."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        words = [a.split() for a in answers]
        return torch.tensor([1.1 * w.count("tea") - 0.1 * len(w) for w in words])


class Remembering(NullTracker):
    """Keeps what was logged and said."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.said: list[str] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((step, dict(metrics)))

    def say(self, text: str) -> None:
        self.said.append(text)

    def values(self, name: str) -> list[float]:
        """Everything that was logged under a name, in order."""
        return [metrics[name] for _, metrics in self.logged if name in metrics]


def context_in(folder: Path, runtime: Runtime | None = None) -> StageContext:
    """A context below a folder, with a tracker that remembers."""
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return StageContext("regime", folder / "out", folder / "work", runtime or Runtime("cpu", threads=1), Remembering())


def run(
    stage: TrainingStage[Any], inputs: Mapping[str, Artifact], folder: Path, runtime: Runtime | None = None
) -> tuple[dict[str, float], Remembering]:
    """Run a stage in a folder; its metrics, and what it reported."""
    context = context_in(folder, runtime)
    metrics = dict(stage.run(inputs, context))
    assert isinstance(context.tracker, Remembering)
    return metrics, context.tracker


def prepared(stage: S, inputs: Mapping[str, Artifact], folder: Path) -> S:
    """The stage, ready to make its first batch."""
    stage.context = context_in(folder)
    stage.prepare(inputs, stage.context)
    return stage


def parameters(stage: TrainingStage[Any]) -> dict[str, Tensor]:
    """What was learnt."""
    modules = stage.modules().items()
    return {f"{m}.{k}": v.detach().clone() for m, module in modules for k, v in module.named_parameters()}


def furthest(a: TrainingStage[Any], b: TrainingStage[Any]) -> float:
    """The largest difference of a weight."""
    one, other = parameters(a), parameters(b)
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one)


def planned(name: str, node: Mapping[str, Any]) -> Step:
    """The plan of one stage, given its configuration as composed."""
    (step,) = plan({name: parse(dict(node), f"pipeline.{name}")}, Runtime("cpu"))
    return step


class KilledError(Exception):
    """Stands for a kill."""


def killed_before(step: int, stage: TrainingStage[Any], inputs: Mapping[str, Artifact], folder: Path) -> None:
    """Run a stage that dies before it has the batch of a step."""
    batch_at = stage.batch_at

    def dying(number: int) -> Any:
        if number == step:
            raise KilledError
        return batch_at(number)

    stage.batch_at = dying  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        run(stage, inputs, folder)


def loop(**changes: Any) -> Loop:
    """Six steps, each logged; changed by keywords."""
    own: dict[str, Any] = {"steps": 6, "batch_size": 6, "validate_every": 3, "log_every": 1, "save_every": 100}
    return Loop(**{**own, "keep": "last", **changes})


def adam(lr: float = 1e-3) -> AdamW:
    """A constant learning rate."""
    return AdamW(lr=lr, eps=1e-5, schedule=Constant(warmup_steps=0))


def online(kind: type[OnlineStage[Any]], **changes: Any) -> Any:
    """An online stage of six steps; `loop_NAME`, `sampling_NAME` and `lr` change its parts."""

    def part(prefix: str, **default: Any) -> dict[str, Any]:
        own = {k.removeprefix(prefix): changes.pop(k) for k in list(changes) if k.startswith(prefix)}
        return default | own

    arguments: dict[str, Any] = {
        "loop": loop(**part("loop_")),
        "sampling": Sampling(**part("sampling_", temperature=0.6, max_new_tokens=6)),
        "optimizer": adam(changes.pop("lr", 1e-3)),
        "data": Questions(),
        "reward": Tea(),
        "seed": 3,
        "prompts_per_rollout": 4,
        "samples_per_prompt": 3,
        "validation_prompts": 3,
    }
    return kind(**(arguments | changes))


class Counted:
    """Counts the models that are loaded, and the batches that are scored by a frozen one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = 0
        self.measured: list[int] = []
        load = Policy.load.__func__  # type: ignore[attr-defined]

        def counted_load(cls: type[Policy], *arguments: Any, **named: Any) -> Policy:
            self.loads += 1
            found: Policy = load(cls, *arguments, **named)
            return found

        monkeypatch.setattr(Policy, "load", classmethod(counted_load))
        measure = sys.modules["alignlab.training.measure"].measure

        def counted(model: Any, batch: Any, *arguments: Any, **named: Any) -> Tensor:
            self.measured.append(batch.num_sequences)
            found: Tensor = measure(model, batch, *arguments, **named)
            return found

        for module in ("alignlab.training.reference", "alignlab.training.rollouts"):
            monkeypatch.setattr(sys.modules[module], "measure", counted)
