"""Report: the stage that writes the results of a run into one HTML file."""

import datetime
from collections.abc import Mapping
from typing import ClassVar

from alignlab.artifact import REPORT, Artifact, Kind
from alignlab.stage import Stage, StageContext


class Report(Stage):
    """Write `report.html`: the pipeline, the curves, the table, the answers side by side, raters, panels.

    It reads the artifacts of all other stages: their manifests, metrics, curves, samples, panels, preferences and
    judgements.

    Args:
        experiment: its name, for the title.
        inputs: none by name; it takes every other stage.
        seed: not used.
    """

    VERSION: ClassVar[str] = "4"
    TAKES_ALL: ClassVar[bool] = True
    PRODUCES: ClassVar[Kind] = "report"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs", "seed"})

    def __init__(self, *, experiment: str = "", inputs: Mapping[str, str] | None = None, seed: int = 0) -> None:
        super().__init__(inputs, seed)
        self.experiment = experiment

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Write the file."""
        from alignlab.report.page import render
        from alignlab.report.run import RunView

        view = RunView.of(inputs)
        text = render(view, self.experiment, datetime.datetime.now(datetime.UTC))
        (context.folder / REPORT).write_text(text, encoding="utf-8")
        return {"bytes": float(len(text.encode())), "models": float(len(view.models))}
