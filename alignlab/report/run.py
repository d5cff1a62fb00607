"""Reads the artifacts of a run into what the report shows. Nothing else of the run is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.artifact import CURVES, SAMPLES, Artifact

Point = tuple[int, float]


@dataclass(frozen=True)
class StageView:
    """One stage as its artifact tells it.

    Args:
        name: in the pipeline.
        artifact: what it left.
        parents: for each of its inputs, the stage that it came from, or a folder.
        metrics: what it returned.
    """

    name: str
    artifact: Artifact
    parents: Mapping[str, str]
    metrics: Mapping[str, float]

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
        """Points of each logged metric, by its name; gaps are left out."""
        found: dict[str, list[Point]] = {}
        for line in self.artifact.lines(CURVES):
            step = int(line.pop("step"))
            for name, value in line.items():
                if value is not None:
                    found.setdefault(name, []).append((step, float(value)))
        return found


@dataclass(frozen=True)
class ModelView:
    """A model that was evaluated: the stage that made it, and all that is known of it."""

    stage: StageView
    metrics: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name


@dataclass(frozen=True)
class RunView:
    """A whole run. Stages stand after their inputs."""

    stages: Mapping[str, StageView]

    @classmethod
    def of(cls, artifacts: Mapping[str, Artifact]) -> "RunView":
        """Read the artifacts of a pipeline, by the names of their stages."""
        names = {artifact.fingerprint: name for name, artifact in artifacts.items()}
        views = {
            name: StageView(name, artifact, _parents(artifact.manifest.get("inputs") or {}, names), artifact.metrics())
            for name, artifact in artifacts.items()
        }
        return cls(_sorted(views))

    def evaluations_of(self, name: str) -> list[StageView]:
        """The evaluations of a stage's model."""
        return [s for s in self.stages.values() if s.kind == "evaluation" and s.parents.get("policy") == name]

    @property
    def models(self) -> list[ModelView]:
        """The policies, base model first; a policy's numbers are its stage's and those of its evaluations."""
        found = []
        for stage in self.stages.values():
            if stage.kind == "policy":
                evaluations = self.evaluations_of(stage.name)
                metrics = dict(stage.metrics)
                for evaluation in evaluations:
                    metrics |= evaluation.metrics
                samples = [row for evaluation in evaluations for row in evaluation.artifact.lines(SAMPLES)]
                found.append(ModelView(stage, metrics, samples))
        return found

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
