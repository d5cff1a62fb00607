"""Which stages there are, what each takes from which, in what order they run, and their fingerprints.

All of it is known before anything has run: a stage's fingerprint is made of its inputs' *fingerprints*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.artifact import Artifact, Kind
from alignlab.config.build import Builder
from alignlab.errors import PipelineError, suggestion
from alignlab.pipeline.fingerprint import identity
from alignlab.pipeline.store import fingerprint
from alignlab.stage import Runtime, Stage

TRAINED: frozenset[Kind] = frozenset({"policy", "reward_model"})
"""Kinds whose content depends on `Runtime.precision`; the rest follow from their inputs."""


@dataclass(frozen=True)
class Step:
    """A stage in its pipeline, ready to run.

    Args:
        name: in the pipeline.
        stage: its class.
        config: its resolved configuration.
        inputs: for each input, the name of another stage or a folder.
        from_stages: those inputs that are stages.
        prints: the fingerprint of each input.
        fingerprint: of what it will make.
        builder: builds the stage; shared, so that all stages read the same data once.
    """

    name: str
    stage: type[Stage]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    from_stages: frozenset[str]
    prints: Mapping[str, str]
    fingerprint: str
    builder: Builder

    def build(self) -> Stage:
        """A fresh stage."""
        stage: Stage = self.builder.build(self.config, f"pipeline.{self.name}")
        return stage


def plan(pipeline: Mapping[str, Mapping[str, Any]], runtime: Runtime) -> list[Step]:
    """The stages in an order in which each comes after its inputs.

    Every stage is built once here, so that a value that a constructor refuses is found before anything trains.

    Args:
        pipeline: resolved configuration of each stage.
        runtime: its precision is part of what a training stage makes.

    Raises:
        PipelineError: an input is missing, unknown, of the wrong kind, or the stages go round in a circle.
        ConfigError: a constructor refuses a value.
    """
    builder = Builder()
    stages = {name: builder.build(node, f"pipeline.{name}") for name, node in pipeline.items()}
    inputs = {name: _inputs(name, stages) for name in stages}
    order = _order({name: [s for s in given.values() if s in stages] for name, given in inputs.items()})
    steps: dict[str, Step] = {}
    for name in order:
        prints = _check_inputs(name, stages, inputs[name], steps)
        try:
            stages[name].check_inputs(frozenset(inputs[name]))
        except ValueError as error:
            raise PipelineError(f"pipeline.{name}: {error}") from error
        whole: dict[str, Any] = {"stage": identity(pipeline[name], f"pipeline.{name}", builder), "inputs": prints}
        if type(stages[name]).PRODUCES in TRAINED:
            whole["precision"] = runtime.precision
        from_stages = frozenset(k for k, v in inputs[name].items() if v in stages)
        key = fingerprint(whole)
        steps[name] = Step(name, type(stages[name]), pipeline[name], inputs[name], from_stages, prints, key, builder)
    return list(steps.values())


def _inputs(name: str, stages: Mapping[str, Stage]) -> dict[str, str]:
    """What a stage takes; one that takes all takes every other one that does not."""
    stage = stages[name]
    if not type(stage).TAKES_ALL:
        return stage.inputs
    return {other: other for other, s in stages.items() if not type(s).TAKES_ALL} | stage.inputs


def _order(takes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each stage after those that it takes, otherwise in the order given."""
    done: list[str] = []
    while len(done) < len(takes):
        ready = next((n for n in takes if n not in done and all(s in done for s in takes[n])), None)
        if ready is None:
            raise PipelineError(f"the stages go round in a circle: {' -> '.join(_circle(takes, done))}; cut one input")
        done.append(ready)
    return done


def _circle(takes: Mapping[str, Sequence[str]], done: Sequence[str]) -> list[str]:
    """One circle among the stages that are not done, each taking the next."""
    walk = [next(n for n in takes if n not in done)]
    while walk[-1] not in walk[:-1]:
        walk.append(next(s for s in takes[walk[-1]] if s not in done))
    return walk[walk.index(walk[-1]) :]


def _check_inputs(
    name: str, stages: Mapping[str, Stage], given: Mapping[str, str], steps: Mapping[str, Step]
) -> dict[str, str]:
    """Fingerprint of each input of a stage, after checking that it is there and of a kind that the stage takes."""
    cls = type(stages[name])
    wanted = {**cls.INPUTS, **cls.OPTIONAL}
    for key in cls.INPUTS:
        if key not in given:
            raise PipelineError(f"pipeline.{name}.inputs.{key}: {cls.__name__} needs it; name a stage or a folder")
    prints = {}
    for key, source in given.items():
        path = f"pipeline.{name}.inputs.{key}"
        if key not in wanted and not cls.TAKES_ALL:
            raise PipelineError(f"{path}: {cls.__name__} takes {', '.join(wanted) or 'no inputs'}, not {key}")
        kind, prints[key] = _source(source, path, stages, steps)
        if key in wanted and kind not in wanted[key]:
            takes = " or ".join(sorted(wanted[key]))
            raise PipelineError(f"{path}: {cls.__name__} takes a {takes} here, but {source!r} makes a {kind}")
    return prints


def _source(source: str, path: str, stages: Mapping[str, Stage], steps: Mapping[str, Step]) -> tuple[str, str]:
    """Kind and fingerprint of an input."""
    if source in stages:
        return type(stages[source]).PRODUCES, steps[source].fingerprint
    if not source or not Path(source).expanduser().is_dir():
        raise PipelineError(
            f"{path}: {source!r} is neither a stage of this pipeline ({', '.join(stages)}) nor an existing folder"
            f"{suggestion(source, list(stages))}"
        )
    artifact = Artifact.open(source, verify=False)
    return artifact.kind, artifact.fingerprint
