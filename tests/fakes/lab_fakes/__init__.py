"""A plugin of stages that do next to nothing, for tests of what surrounds stages."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from alignlab.artifact import PREFERENCES, SAMPLES, Artifact, Kind
from alignlab.errors import DataError, Pruned
from alignlab.stage import Shared, Stage, StageContext

CONTRACT = 2


@dataclass(frozen=True)
class Weighing:
    """Stands for an objective."""

    VERSION: ClassVar[str] = "1"
    beta: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    kind: Literal["soft", "hard"] = "soft"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"Weighing: beta must be > 0, got {self.beta}; it scales the margin")


@dataclass(frozen=True)
class Counting(Weighing):
    """Another one."""


class Make(Stage):
    """Makes a policy: a file that holds a number."""

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        "policy": frozenset({"policy"}),
        "preferences": frozenset({"preferences"}),
    }
    PRODUCES: ClassVar[Kind] = "policy"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs", "workers", "objective.limit"})

    def __init__(
        self,
        *,
        size: int,
        objective: Weighing | None = None,
        workers: int = 1,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        self.size = size
        self.objective = objective
        self.workers = workers

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        before = json.loads((inputs["policy"].path / "model.json").read_text()) if "policy" in inputs else 0
        (context.folder / "model.json").write_text(json.dumps(before + self.size))
        context.tracker.log(1, {"train/loss": 1.0})
        return {"loss": float(self.size)}


class Scored(Make):
    """Looks at its policy first, which stages of any size share."""

    def shares(self) -> Shared:
        return Shared("look", frozenset({"policy"}), frozenset({"size", "objective", "workers", "seed"}), {})

    def make_shared(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        def look(folder: Path, work: Path) -> None:
            (folder / "look.txt").write_text("seen")

        context.once({"look": "1", "policy": inputs["policy"].fingerprint}, look)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        self.make_shared(inputs, context)
        return super().run(inputs, context)


class Prefer(Stage):
    """Makes preferences out of nothing."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "preferences"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (context.folder / PREFERENCES).write_text("")
        return {"pairs": 0.0}


class Measure(Stage):
    """Asks two questions of a policy."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "evaluation"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        value = json.loads((inputs["policy"].path / "model.json").read_text())
        rows = [{"prompt": p, "answer": f"{p}{value}", "kind": "fact"} for p in ("a", "b")]
        (context.folder / SAMPLES).write_text("".join(json.dumps(r) + "\n" for r in rows))
        return {"fact_recall": value / 10, "loss": 7.0}


class Summary(Stage):
    """A report."""

    VERSION: ClassVar[str] = "1"
    TAKES_ALL: ClassVar[bool] = True
    PRODUCES: ClassVar[Kind] = "report"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (context.folder / "report.html").write_text(" ".join(sorted(inputs)))
        return {}


class Trouble(Stage):
    """Goes wrong in a way of one's choice."""

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "other"

    def __init__(self, *, how: str = "user", inputs: Mapping[str, str] | None = None, seed: int = 0) -> None:
        super().__init__(inputs, seed)
        self.how = how

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (context.folder / "half.txt").write_text("half")
        if self.how == "user":
            raise DataError("corpus.jsonl:3: text is missing")
        if self.how == "bug":
            raise RuntimeError("a bug")
        if self.how == "infinite":
            return {"loss": float("inf")}
        if self.how == "exit":
            sys.exit(3)
        if self.how == "unread":
            raise BrokenPipeError
        if self.how == "unread by rich":
            try:
                raise BrokenPipeError
            except BrokenPipeError:
                sys.exit(1)
        if self.how == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        if self.how == "slow":
            (context.work / "began").touch()
            time.sleep(60)
        return {"ok": 1.0}


class Descend(Stage):
    """Comes down to a parabola in x, step by step, and validates after each."""

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "other"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs", "pause"})

    def __init__(
        self,
        *,
        x: float = 0.0,
        steps: int = 4,
        fails_above: float = 2.0,
        pause: float = 0.0,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        self.x, self.steps, self.fails_above, self.pause = x, steps, fails_above, pause

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        if self.x > self.fails_above:
            raise DataError("too high")
        goal = (self.x - 0.3) ** 2
        for step in range(1, self.steps + 1):
            (context.work / "half.txt").write_text(str(step))
            time.sleep(self.pause)
            if context.validated(step, {"loss": goal + 1 / step}):
                raise Pruned(f"{context.name}: pruned at step {step} of {self.steps}")
        return {"validation_loss": goal}


class Hidden:
    """Not a stage."""

    def __init__(self, path: str = "") -> None:
        Path(path)
