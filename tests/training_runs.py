"""Running the small stages of `training_cases`: what was logged, a kill in the middle, how far apart weights are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from training_cases import Dies, Fixed, Mortal, stage_of

from alignlab.runtime import Runtime
from alignlab.stage import NullTracker, StageContext


class Heard(NullTracker):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append({"step": step, **metrics})

    def values(self, name: str) -> list[float]:
        """Everything that was logged under a name, in order."""
        return [m[name] for m in self.logged if name in m]


def run_in(folder: Path, stage: Fixed, runtime: Runtime | None = None) -> tuple[dict[str, float], Heard]:
    """Train in a folder; returns the metrics and what was logged."""
    heard = Heard()
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    context = StageContext("loop", folder / "out", folder / "work", runtime or Runtime("cpu"), heard)
    return dict(stage.run({}, context)), heard


def killed_and_resumed(folder: Path, make: Callable[[], Fixed]) -> tuple[Fixed, Heard]:
    """A stage that died before step 3 and went on; what the second run logged."""
    killed = make()
    killed.__class__ = type("Killed", (Mortal, type(killed)), {})
    with pytest.raises(Dies):
        run_in(folder, killed)
    resumed = make()
    return resumed, run_in(folder, resumed)[1]


def furthest(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest difference of a weight."""
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def with_kind(kind: type[Fixed], name: str = "answer_nll", **loop: Any) -> Fixed:
    """One step (or more) of a case in one micro-batch, by a class that is a little different."""
    stage = stage_of(name, 10_000, **{"steps": 1, "log_every": 1, **loop})
    stage.__class__ = kind
    return stage
