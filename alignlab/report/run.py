"""Read the artifacts of a run into what the report shows. Nothing else of the run is read."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignlab.artifact import CURVES, SAMPLES, Artifact
from alignlab.metrics import Column, Panel, read_columns, read_metrics, read_panels

Point = tuple[int, float]


@dataclass(frozen=True)
class StageView:
    """One stage, read from its artifact.

    Args:
        name: in the pipeline.
        artifact: that it left.
        parents: for each of its inputs, the stage that made it, or a folder.
        metrics: by name; those with an interval are estimates.
        columns: what its metrics are, by evaluation ("" for the stage's own).
    """

    name: str
    artifact: Artifact
    parents: Mapping[str, str]
    metrics: Mapping[str, float]
    columns: Mapping[str, Sequence[Column]]

    @classmethod
    def of(cls, name: str, artifact: Artifact, names: Mapping[str, str]) -> "StageView":
        """Read an artifact; `names` are those of the run's stages, by fingerprint."""
        parents = _parents(artifact.manifest.get("inputs") or {}, names)
        return cls(name, artifact, parents, read_metrics(artifact), read_columns(artifact))

    @property
    def headline(self) -> list[tuple[Column, float]]:
        """Columns that the stage itself puts into tables, with their numbers."""
        own = [c for c in self.columns.get("", ()) if c.headline]
        return [(column, self.metrics[column.metric]) for column in own if column.metric in self.metrics]

    @property
    def seconds(self) -> float | None:
        """How long it took when it was made."""
        value = self.artifact.manifest.get("seconds")
        return float(value) if value is not None else None

    @property
    def kind(self) -> str:
        """Kind of its artifact."""
        return self.artifact.kind

    @property
    def made_by(self) -> str:
        """Name of the stage's class."""
        return str(self.artifact.manifest.get("stage", "")).rsplit(".", 1)[-1]

    def curves(self) -> dict[str, list[Point]]:
        """Points of each logged metric, by its name; gaps are left out, and what follows a damaged line."""
        found: dict[str, list[Point]] = {}
        with contextlib.suppress(ValueError, LookupError, TypeError):  # curves are not worth a run that cannot report
            for line in self.artifact.lines(CURVES):
                step = int(line.pop("step"))
                for name, value in line.items():
                    if value is not None:
                        found.setdefault(name, []).append((step, float(value)))
        return found


@dataclass(frozen=True)
class ModelView:
    """A policy: the stage that made it, and the evaluations that measured it."""

    stage: StageView
    evaluations: Sequence[StageView] = ()

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """Numbers of its stage and of its evaluations; of two evaluations that measured one name, the first counts."""
        views = (self.stage, *reversed(self.evaluations))
        return {name: value for view in views for name, value in view.metrics.items()}

    @cached_property
    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Its answers."""
        return [row for evaluation in self.evaluations for row in evaluation.artifact.lines(SAMPLES)]

    @cached_property
    def panels(self) -> list[tuple[str, Panel]]:
        """Panels that its evaluations add to the report, each with the name of its evaluation."""
        return [found for view in self.evaluations for found in read_panels(view.artifact)]

    @property
    def columns(self) -> list[Column]:
        """Metrics that its evaluations declare, in the order of a table."""
        return [column for view in self.evaluations for columns in view.columns.values() for column in columns]


@dataclass(frozen=True)
class RunView:
    """A whole run. Stages stand after their inputs."""

    stages: Mapping[str, StageView]

    @classmethod
    def of(cls, artifacts: Mapping[str, Artifact]) -> "RunView":
        """Read the artifacts of a pipeline, by the names of their stages."""
        names = {artifact.fingerprint: name for name, artifact in artifacts.items()}
        return cls(_sorted({name: StageView.of(name, artifact, names) for name, artifact in artifacts.items()}))

    def evaluations_of(self, name: str) -> list[StageView]:
        """The evaluations of a stage's model."""
        return [s for s in self.stages.values() if s.kind == "evaluation" and s.parents.get("policy") == name]

    @cached_property
    def models(self) -> list[ModelView]:
        """The policies in the order of the pipeline; one from elsewhere goes by the name of its evaluation."""
        found = []
        for stage in self.stages.values():
            if stage.kind == "policy":
                found.append(ModelView(stage, self.evaluations_of(stage.name)))
            elif stage.kind == "evaluation" and stage.parents.get("policy") not in self.stages:
                found.append(ModelView(stage, [stage]))
        return found

    @cached_property
    def measured(self) -> list[ModelView]:
        """The policies, and the stages that measured something else (a reward model, say)."""
        return [*self.models, *(ModelView(s, [s]) for s in self.stages.values() if s.kind == "other")]

    @property
    def seconds(self) -> float:
        """Of all stages together."""
        return sum(stage.seconds or 0.0 for stage in self.stages.values())


def _parents(inputs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    return {role: _parent(value, names) for role, value in inputs.items()}


def _parent(value: Any, names: Mapping[str, str]) -> str:
    """By fingerprint: the artifact may have been made by another pipeline, in which the stage had another name."""
    return names.get(value["fingerprint"]) or str(value["from"])


def _sorted(views: Mapping[str, StageView]) -> dict[str, StageView]:
    """Inputs first; otherwise in the given order."""
    done: dict[str, StageView] = {}

    def visit(name: str) -> None:
        if name in views and name not in done:
            for parent in views[name].parents.values():
                visit(parent)
            done[name] = views[name]

    for name in views:
        visit(name)
    return done
