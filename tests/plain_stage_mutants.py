"""Stages that train nothing, with one fault each."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from stage_cases import Honest

from alignlab.artifact import Artifact, Kind
from alignlab.stage import StageContext


class NoVersion(Honest):
    """Inherits what it should state."""


class Undeclared(Honest):
    """Takes an input that it does not declare."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {}


class NotANumber(Honest):
    """Reports NaN as a metric."""

    VERSION: ClassVar[str] = "1"

    def summary(self, found: list[float]) -> float:
        return float("nan")


class Silent(Honest):
    """Reports no progress."""

    VERSION: ClassVar[str] = "1"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        context.tracker.say("done")
        return {}


class Swallows(Honest):
    """Publishes what it has when it is killed."""

    VERSION: ClassVar[str] = "1"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        try:
            return super().run(inputs, context)
        except BaseException:
            return {}


class Elsewhere(Honest):
    """Writes next to its own folder."""

    VERSION: ClassVar[str] = "1"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (context.folder.parent / "counts.part").write_text("0")
        return super().run(inputs, context)


class CountsTwice(Honest):
    """Starts from the beginning after a kill, and keeps what it had found before."""

    VERSION: ClassVar[str] = "1"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        with (context.work / "log").open("a") as log:
            for portion in range(3):
                log.write("portion\n")
                context.tracker.progress(portion + 1, 3, {})
        (context.folder / "log").write_text((context.work / "log").read_text())
        return {}


class Unseeded(Honest):
    """Draws from the global generator."""

    VERSION: ClassVar[str] = "1"

    def look(self, rows: list[dict[str, str]]) -> float:
        return len(rows) + float(torch.rand(()))


class Vandal(Honest):
    """Writes into its input."""

    VERSION: ClassVar[str] = "1"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (inputs["preferences"].path / "seen").write_text("yes")
        return super().run(inputs, context)
