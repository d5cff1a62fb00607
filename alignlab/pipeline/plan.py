"""Order, inputs and fingerprints of the stages of a pipeline.

All of it is known before anything has run: a stage's fingerprint is made of its inputs' *fingerprints*.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.artifact import MANIFEST, Artifact, fingerprint, lost
from alignlab.config.spec import Builder, Spec
from alignlab.data.preflight import check_settings
from alignlab.data.source import DataSource
from alignlab.errors import PipelineError, suggestion
from alignlab.runtime import Runtime
from alignlab.stage import Shared, Stage

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
"""`Qwen/Qwen2.5-0.5B`: a name on the Hugging Face hub, or a folder that does not exist."""


@dataclass(frozen=True)
class Step:
    """A stage in its pipeline, ready to run.

    Args:
        name: in the pipeline.
        spec: its class and arguments.
        inputs: for each input, the name of another stage or a folder.
        from_stages: those inputs that are stages.
        input_fingerprints: by input.
        fingerprint: of what it will make.
        recipe: the fingerprint without the code, to find out which class has changed.
        code: digest of the code of each of its classes, by public path.
        builder: builds the stage; shared, so that all stages read the same data once.
        again: it is to run even if the store has it.
        shares: a part of its work that other stages share; None where there is none.
        shared_recipe: under which the store notes what was asked for that part.
    """

    name: str
    spec: Spec
    inputs: Mapping[str, str]
    from_stages: frozenset[str]
    input_fingerprints: Mapping[str, str]
    fingerprint: str
    recipe: str
    code: Mapping[str, str]
    builder: Builder
    again: bool = False
    shares: Shared | None = None
    shared_recipe: str = ""

    @property
    def stage(self) -> type[Stage]:
        """The class of the stage."""
        return self.spec.cls

    def build(self) -> Stage:
        """A new stage."""
        stage: Stage = self.spec.build(self.builder)
        return stage


def plan(
    pipeline: Mapping[str, Spec], runtime: Runtime, removed: Sequence[str] = (), rerun: Sequence[str] = ()
) -> list[Step]:
    """The stages in an order in which each comes after its inputs.

    Every stage is built once here, so that a value that a constructor refuses is found before anything trains.

    Args:
        pipeline: the stages by name.
        runtime: its precision is part of what a training stage makes.
        removed: names of stages that the command line took out of the pipeline.
        rerun: names of stages that are to run, with everything that depends on them, even if the store has them.

    Raises:
        PipelineError: an input is missing, unknown or of the wrong kind, or the stages form a cycle.
        ConfigError: a constructor refuses a value.
        MissingDataError: no file is named for records that some stages read.
    """
    builder = Builder(shared=(DataSource,))
    stages: dict[str, Stage] = {name: builder.build(spec) for name, spec in pipeline.items()}
    for stage in stages.values():
        stage.check_runtime(runtime)
    check_settings({name: stage.data_needs() for name, stage in stages.items()})
    inputs = {name: _inputs(name, stages) for name in stages}
    _check_removed(removed, {name: stage.inputs for name, stage in stages.items()})
    order = _order({name: [s for s in given.values() if s in stages] for name, given in inputs.items()})
    steps: dict[str, Step] = {}
    for name in order:
        prints = _check_inputs(name, pipeline[name].path, stages, inputs[name], steps)
        from_stages = frozenset(k for k, v in inputs[name].items() if v in stages)
        again = name in rerun or any(steps[inputs[name][k]].again for k in from_stages)
        keys = keys_of(
            pipeline[name], prints, {k: steps[inputs[name][k]].recipe for k in from_stages}, runtime, builder
        )
        shares = stages[name].shares()
        recipe = "" if shares is None else _shared_recipe(shares, pipeline[name], prints, runtime, builder)
        steps[name] = Step(
            name, pipeline[name], inputs[name], from_stages, prints, *keys, builder, again, shares, recipe
        )
    return list(steps.values())


def keys_of(
    spec: Spec, prints: Mapping[str, str], recipes: Mapping[str, str], runtime: Runtime, builder: Builder
) -> tuple[str, str, dict[str, str]]:
    """Fingerprint, recipe and code of a stage."""
    whole: dict[str, Any] = {"stage": spec.identity(builder)}
    if trains(spec.cls):
        whole["precision"] = runtime.precision
    code = spec.code()
    key = fingerprint({**whole, "inputs": prints, "code": code})
    return key, fingerprint({**whole, "inputs": {**prints, **recipes}}), code


def _shared_recipe(shares: Shared, spec: Spec, prints: Mapping[str, str], runtime: Runtime, builder: Builder) -> str:
    """Digest of what is known beforehand of a part that a stage shares."""
    identity = {k: v for k, v in spec.identity(builder).items() if k not in shares.without}
    made_of = {k: v for k, v in prints.items() if k in shares.inputs}
    known: dict[str, Any] = {"stage": identity, "inputs": made_of, "further": dict(shares.further)}
    known["runtime"] = [runtime.precision, runtime.device.type, runtime.compile]
    return fingerprint({shares.name: known})


def trains(cls: type[Stage]) -> bool:
    """Whether what a stage makes depends on `Runtime.precision`; all other stages depend on it through their inputs."""
    return bool(getattr(cls, "TRAINS", False))


def _inputs(name: str, stages: Mapping[str, Stage]) -> dict[str, str]:
    """Inputs of a stage; a stage that takes all has every stage that does not as an input."""
    stage = stages[name]
    if not type(stage).TAKES_ALL:
        return stage.inputs
    return {other: other for other, s in stages.items() if not type(s).TAKES_ALL} | stage.inputs


def _check_removed(removed: Sequence[str], inputs: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse to remove a stage that others still need; all of them are named at once."""
    needed = [name for name in removed if any(name in given.values() for given in inputs.values())]
    if not needed:
        return
    gone, dependents = set(needed), list[str]()
    while more := [n for n, given in inputs.items() if n not in gone and gone & set(given.values())]:
        gone.update(more)
        dependents += more
    raise PipelineError(
        f"{' '.join(f'~pipeline.{n}' for n in needed)}: {', '.join(dependents)} would miss an input; remove what "
        f"depends on it too ({' '.join(f'~pipeline.{n}' for n in dependents)}), or set other inputs"
    )


def _order(takes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each stage after those that it takes, otherwise in the order given."""
    done: list[str] = []
    while len(done) < len(takes):
        ready = next((n for n in takes if n not in done and all(s in done for s in takes[n])), None)
        if ready is None:
            raise PipelineError(f"dependency cycle: {' -> '.join(_cycle(takes, done))}; remove one of these inputs")
        done.append(ready)
    return done


def _cycle(takes: Mapping[str, Sequence[str]], done: Sequence[str]) -> list[str]:
    """One cycle among the stages that are not done, each taking the next."""
    walk = [next(n for n in takes if n not in done)]
    while walk[-1] not in walk[:-1]:
        walk.append(next(s for s in takes[walk[-1]] if s not in done))
    return walk[walk.index(walk[-1]) :]


def _check_inputs(
    name: str, at: str, stages: Mapping[str, Stage], given: Mapping[str, str], steps: Mapping[str, Step]
) -> dict[str, str]:
    """Fingerprint of each input of a stage, after checking that it is there and of a kind that the stage takes.

    Args:
        at: the stage's place in the configuration, for messages: `pipeline.dpo`, or `stage` where it is alone.
    """
    cls = type(stages[name])
    wanted = {**cls.INPUTS, **cls.OPTIONAL}
    for key in cls.INPUTS:
        if key not in given:
            raise PipelineError(f"{at}.inputs.{key}: {cls.__name__} needs it; name a stage or a folder")
    prints = {}
    for key, source in given.items():
        path = f"{at}.inputs.{key}"
        kinds = wanted.get(key, cls.FURTHER)
        if not kinds and not cls.TAKES_ALL:
            raise PipelineError(f"{path}: {cls.__name__} takes {', '.join(wanted) or 'no inputs'}, not {key}")
        kind, prints[key] = _source(source, path, key in cls.OPTIONAL, stages, steps)
        if kinds and kind not in kinds:
            takes = " or ".join(sorted(kinds))
            own = "" if key in wanted else f"; its inputs are {', '.join(wanted)}, and others that are {takes}"
            raise PipelineError(f"{path}: {cls.__name__} takes {takes} here, but {source!r} makes a {kind}{own}")
    try:
        stages[name].check_inputs(frozenset(given))
    except ValueError as error:
        raise PipelineError(f"{at}: {error}") from error
    return prints


def _source(
    source: str, path: str, is_optional: bool, stages: Mapping[str, Stage], steps: Mapping[str, Step]
) -> tuple[str, str]:
    """Kind and fingerprint of an input."""
    if source in stages:
        return type(stages[source]).PRODUCES, steps[source].fingerprint
    if not source or not Path(source).expanduser().is_dir():
        raise PipelineError(_no_source(source, path, is_optional, list(stages)))
    artifact = Artifact.open(source, verify=False)
    if artifact.manifest:  # else what follows would be that of the folder as it was published
        artifact.verify(since=(artifact.path / MANIFEST).stat().st_mtime_ns)
    return artifact.kind, artifact.fingerprint


def _no_source(source: str, path: str, is_optional: bool, stages: list[str]) -> str:
    meant = suggestion(source, stages)
    text = f"{path}: {source!r} is neither a stage of this pipeline ({', '.join(stages)}) nor an existing folder{meant}"
    if meant:
        return text
    if reason := lost(Path(source).expanduser()):
        return f"{text}; {reason}"
    if not HUB_NAME.fullmatch(source):
        without = f", or do without it: '~{path}'" if is_optional else ""
        return f"{text}; set {path}=FOLDER{without}"
    folder = source.rpartition("/")[2]
    return (
        f"{text}; if it is a model on the Hugging Face hub, bring it in by the stage import_model (experiment=align "
        f"model.name_or_path={source}), or download it (hf download {source} --local-dir {folder}) and name the "
        f"folder: {path}={folder}"
    )
