"""A composed configuration, resolved and checked: an experiment."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignlab.config import options
from alignlab.config.check import Checker, child
from alignlab.config.locate import is_target
from alignlab.config.optional import leave_out
from alignlab.config.replaced import Tree
from alignlab.config.spec import Spec
from alignlab.errors import ConfigError, suggestion
from alignlab.sanitize import REDACTED, redact

OBJECTS: Final = ("runtime", "tracking", "data", "model", "tokenizer", "adapter", "rollout")
"""Top-level keys that each hold one object."""
REQUIRED: Final = ("runtime", "tracking")
SCALARS: Final[Mapping[str, type]] = {"name": str, "seed": int, "store_dir": str}
KEYS: Final = (*SCALARS, *OBJECTS, "pipeline", "stage", "rerun", "sweep")
STAGE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")
"""Stage names become names of files, of W&B job types, and parts of dotted paths."""


@dataclass(frozen=True)
class Experiment:
    """A checked configuration.

    Args:
        config: all of it, resolved and plain.
        objects: the object of each top-level key of `OBJECTS` that is set.
        pipeline: the stages by name, in the order in which they were written.
        removed: stages that the command line took out of the pipeline.
    """

    config: Mapping[str, Any]
    objects: Mapping[str, Spec]
    pipeline: Mapping[str, Spec]
    removed: Sequence[str] = field(default=())

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.config["name"])

    @property
    def seed(self) -> int:
        """Seed of every stage that does not set its own."""
        return int(self.config["seed"])

    @property
    def store(self) -> Path:
        """Folder of the artifacts."""
        return Path(self.config["store_dir"])

    @property
    def rerun(self) -> list[str]:
        """Stages to run again even if the store has them."""
        given = self.config.get("rerun") or []
        return [given] if isinstance(given, str) else list(given)

    @property
    def metric(self) -> str | None:
        """Metric that a job returns to the sweeper: `dpo/validation_loss`."""
        return (self.config.get("sweep") or {}).get("metric")

    def redacted(self) -> dict[str, Any]:
        """The configuration without secrets."""
        found: dict[str, Any] = redact({k: v for k, v in self.config.items() if k not in ("rerun", "sweep")})
        return found

    def recorded(self) -> dict[str, Any]:
        """The configuration without secrets, as a later command can take it by `--config`."""
        stages = self.config.get("pipeline") or dict.fromkeys(self.pipeline, self.config.get("stage"))
        return {**self.redacted(), "pipeline": redact(stages), "stage": None}


def check(cfg: Tree, overrides: Sequence[str] = (), hydra: Tree = None) -> Experiment:
    """Resolve a configuration and check all of it, before anything trains.

    Args:
        cfg: as composed.
        overrides: as typed.
        hydra: Hydra's section, where `cfg` does not hold it.

    Raises:
        ConfigError: the problems found, each on a line with its whole dotted path.
    """
    chosen = dict((hydra or cfg.hydra).runtime.choices)
    resolved, raw = _resolve(cfg)
    checker = Checker(options.catalog(options.options()))
    for path in _paths_of(resolved, REDACTED):
        checker.problem(f"{path}: its value was left out when the run was recorded; set {path}=...")
    _check_top(resolved, chosen, checker)
    objects = {key: _object(resolved.get(key), raw.get(key), key, checker) for key in OBJECTS}
    pipeline = {n: _stage(s, child(raw["pipeline"], n), f"pipeline.{n}", checker) for n, s in _stages(resolved).items()}
    alone = _stage(resolved["stage"], raw["stage"], "stage", checker) if resolved.get("stage") is not None else None
    checker.raise_problems()
    stages = _pipeline({k: s for k, s in pipeline.items() if s is not None}, alone, chosen.get("stage"))
    removed = [name for o in overrides if (name := _removed(o)) and name not in stages]
    found = Experiment(resolved, {k: s for k, s in objects.items() if s is not None}, stages, removed)
    _check_names(found)
    return found


def _resolve(cfg: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration without Hydra's section, with its interpolations resolved and as it was."""
    try:
        own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        raw: Any = OmegaConf.to_container(own, resolve=False)
        if missing := sorted(_paths_of(raw, MISSING)):
            raise ConfigError("\n".join(f"{key}: needs a value; set {key}=..." for key in missing))
        resolved: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error
    return resolved, raw


def _paths_of(node: Any, value: str, path: str = "") -> Iterator[str]:
    """Dotted paths at which a configuration has a value: where one is missing, or a secret was left out."""
    parts = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, part in parts:
        yield from _paths_of(part, value, f"{path}.{key}" if path else str(key))
    if node == value:
        yield path


def _removed(override: str) -> str:
    """Name of the stage that an override like `~pipeline.ppo` removes; empty if it removes none."""
    found = re.fullmatch(r"~pipeline\.([^.=@]+)(?:=.*)?", override)
    return found[1] if found else ""


# ---- parts -----------------------------------------------------------------------------------------------------------
def _check_top(resolved: Mapping[str, Any], chosen: Mapping[str, str | None], checker: Checker) -> None:
    for key in resolved:
        if key == "experiment":
            checker.problem(
                f"experiment={chosen.get('experiment')}: the file of an experiment needs the line "
                f"`# @package _global_` at its top; without it, its content lands below the key `experiment`"
            )
        elif key not in KEYS:
            hint = suggestion(str(key), [k for k in (*KEYS, "experiment") if k != key])
            checker.problem(f"{key}: no such key; there are {', '.join(KEYS)}{hint}")
    if isinstance(resolved.get("seed"), int) and not 0 <= resolved["seed"] < 2**63:
        checker.problem(f"seed: must be from 0 to 2**63 - 1, got {resolved['seed']}")
    if resolved.get("store_dir") == "":
        checker.problem("store_dir: is empty; name a folder")
    for key, wanted in SCALARS.items():
        value = resolved.get(key)
        if not isinstance(value, wanted) or isinstance(value, bool):
            checker.problem(f"{key}: expected {wanted.__name__}, got {value!r}")
    _check_rerun(resolved.get("rerun"), checker)
    _check_sweep(resolved.get("sweep"), checker)


def _check_rerun(value: Any, checker: Checker) -> None:
    names = [value] if isinstance(value, str) else value
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        checker.problem(f"rerun: expected the name of a stage or a list of names, got {_short(value)}")


def _check_sweep(value: Any, checker: Checker) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        checker.problem(f"sweep: its keys are metric (STAGE/METRIC) and resume (true, false), got {_short(value)}")
    elif other := sorted(set(map(str, value)) - {"metric", "resume"}):
        checker.problem(f"sweep: takes metric and resume, not {other[0]}{suggestion(other[0], ['metric', 'resume'])}")
    elif not isinstance(value.get("resume", False), bool):
        checker.problem(f"sweep.resume: expected true or false, got {_short(value.get('resume'))}")
    elif (metric := value.get("metric")) is not None and not (isinstance(metric, str) and "/" in metric.strip("/")):
        checker.problem(f"sweep.metric: expected STAGE/METRIC, such as dpo/validation_loss, got {_short(metric)}")


def _object(node: Any, raw: Any, path: str, checker: Checker) -> Spec | None:
    if is_target(node):
        return checker.object(node, raw, path)
    if node is not None or path in REQUIRED:
        checker.problem(f"{path}: expected one of its options or a `_target_`, got {_short(node)}")
    return None


def _stage(node: Any, raw: Any, path: str, checker: Checker) -> Spec | None:
    from alignlab.stage import Stage

    if not is_target(node):
        names = ", ".join(checker.catalog.get("stage", ()))
        checker.problem(f"{path}: is not a stage, it has no `_target_`; stages: {names}; got {_short(node)}")
        return None
    if isinstance(node.get("inputs"), Mapping):  # a file cannot take a key away, but it can set it to null
        node = {**node, "inputs": {name: given for name, given in node["inputs"].items() if given is not None}}
    made = checker.object(node, raw, path)
    if made is not None and not issubclass(made.cls, Stage):
        checker.problem(f"{path}: {made.cls.__name__} is not a Stage")
    return made


def _stages(resolved: Mapping[str, Any]) -> dict[str, Any]:
    pipeline = {} if resolved.get("pipeline") is None else resolved["pipeline"]
    if not isinstance(pipeline, dict):
        raise ConfigError(f"pipeline: expected stages by name, got {_short(pipeline)}")
    for name in pipeline:
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name):
            raise ConfigError(f"pipeline: {name!r} cannot name a stage; use letters, digits, '_' and '-'")
    leave_out(pipeline)
    return pipeline


def _pipeline(pipeline: Mapping[str, Spec], alone: Spec | None, option: str | None) -> Mapping[str, Spec]:
    """The stages, or the only one of experiment=train, which is named after its option."""
    if alone is None:
        if not pipeline:
            names = ", ".join(options.catalog(options.options()).get("experiment", ()))
            raise ConfigError(f"nothing to run: choose experiment=... ({names}); experiment=train also needs stage=...")
        return pipeline
    if pipeline:
        raise ConfigError(
            f"stage={option} cannot be combined with a pipeline ({', '.join(pipeline)}); use it with experiment=train, "
            f"or add it to the pipeline with +pipeline.{option}={option}"
        )
    return {option or "stage": alone}


def _check_names(experiment: Experiment) -> None:
    """Refuse a stage to rerun, or to take a metric from, that the pipeline does not have."""
    known = list(experiment.pipeline)
    for name in experiment.rerun:
        if name not in known:
            raise ConfigError(f"rerun={name}: no such stage; stages: {', '.join(known)}{suggestion(name, known)}")
    stage = (experiment.metric or "").partition("/")[0]
    if stage and stage not in known:
        raise ConfigError(
            f"sweep.metric={experiment.metric}: no such stage; stages: {', '.join(known)}{suggestion(stage, known)}"
        )


def _short(value: Any) -> str:
    text = repr(redact(value))  # the message ends up in status.json
    return text if len(text) < 80 else f"{text[:77]}..."
