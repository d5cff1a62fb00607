"""Compose, resolve and check the configuration of an experiment.

Of the library, only this module knows Hydra; the command does too (`cli`, `jobs`, `overrides`, `chosen`, `foreign`).
What leaves here is plain: mappings, lists and scalars, checked against the constructors that they will be given to.
"""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import hydra
import omegaconf
import yaml
from hydra import compose, initialize
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from alignlab.config import plugins
from alignlab.config.overrides import appended, rewrite
from alignlab.errors import ConfigError, suggestion
from alignlab.sanitize import redact

Tree: TypeAlias = Any
"""OmegaConf's DictConfig, by a name that type checkers at run time can live with (its bases are of old `typing`)."""

NAME: Final = "config"
VERSION_BASE: Final = "1.3"
OBJECTS: Final = ("runtime", "tracking", "data", "model", "tokenizer")
"""Top-level keys that each hold one object."""
REQUIRED: Final = ("runtime", "tracking")
SCALARS: Final[Mapping[str, type]] = {"name": str, "seed": int, "store_dir": str}
STAGE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")
"""Stage names become names of files, of W&B job types, and parts of dotted paths."""
KEYS: Final = (*SCALARS, *OBJECTS, "pipeline", "stage")


class AlignlabSearchPath(SearchPathPlugin):
    """The core's config groups, then each plugin's.

    Registered by hand: a class in `hydra_plugins` would put our groups into unrelated Hydra applications. Roots are
    `file://`, as Hydra's `pkg://` finds only folders that hold an `__init__.py`.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package, conf in plugins.roots(self.folders):
            search_path.append(provider=package, path=f"file://{conf}")

    folders: ClassVar[Sequence[Path]] = ()
    """What `--config-dir` adds, where Hydra does not see that flag itself."""


def register(folders: Sequence[Path] = ()) -> None:
    """Make Hydra find our config groups; any number of times."""
    AlignlabSearchPath.folders = tuple(folders)
    Plugins.instance().register(AlignlabSearchPath)


def top_groups() -> list[str]:
    """Groups of the root's defaults list: their options stand at the top of the configuration."""
    root = plugins.Option("", NAME, plugins.core_conf() / f"{NAME}.yaml", plugins.CORE).read()
    return [k.removeprefix("override ") for e in root["defaults"] if isinstance(e, dict) for k in e]


@contextmanager
def hydra_session(folders: Sequence[Path] = ()) -> Iterator[None]:
    """What `composed` needs around it; within a job, or another session, that is there already."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: no such folder: {folder}")
    register(folders)
    with composing(), initialize(version_base=VERSION_BASE, config_path=None, job_name="alignlab"):
        yield


@contextmanager
def composing() -> Iterator[None]:
    """What goes wrong while Hydra composes, as one message: its own errors, and a file that is no configuration."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_of_hydra(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"a file of options is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError("the defaults lists go round in a circle; does a file of options name itself?") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ConfigError(f"{error}; choose another folder (hydra.run.dir, hydra.sweep.dir)") from error
        if not _raised_by_hydra(error):
            raise
        raise ConfigError(f"the configuration cannot be composed ({type(error).__name__}: {error})") from error


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra stumbled over what it was given: its own code raised, not ours."""
    last = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)][-1:]
    homes = [Path(str(module.__file__)).parent for module in (hydra, omegaconf, yaml)]
    return any(file.is_relative_to(home) for file in last for home in homes)


def _of_hydra(error: BaseException) -> str:
    """Hydra's message and its cause's, each once, without its search path."""
    found: list[str] = []
    step: BaseException | None = error
    while step is not None:
        text = str(step).partition("\nConfig search path:")[0].strip()
        if text and not any(text in other for other in found):
            found.append(text)
        step = step.__cause__
    return "\n".join(found)


def expanded(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every job of a sweep, as Hydra's basic sweeper has them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]


def composed(overrides: Sequence[str]) -> tuple[Tree, str | None]:
    """The configuration of some rewritten overrides, and the chosen option of `stage`; inside `hydra_session`."""
    cfg = with_hydra(overrides)
    stage = OmegaConf.select(cfg, "hydra.runtime.choices.stage")
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return cfg, stage


def with_hydra(overrides: Sequence[str]) -> Tree:
    """The configuration of some rewritten overrides, Hydra's own section included; inside `hydra_session`."""
    try:
        return compose(config_name=NAME, overrides=list(overrides), return_hydra_config=True)
    except HydraException as error:
        more = appended(str(error), overrides)
        if more is None:
            raise
        return with_hydra(more)


@dataclass(frozen=True)
class Experiment:
    """A checked configuration.

    Args:
        config: all of it, resolved and plain.
        pipeline: the stages by name, in the order in which they were written.
    """

    config: Mapping[str, Any]
    pipeline: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """What the experiment is called."""
        return str(self.config["name"])


def check(cfg: Tree, stage: str | None) -> Experiment:
    """Resolve a configuration and check all of it, before anything trains.

    Args:
        cfg: as composed.
        stage: the chosen option of `stage` (experiment=train), which names the only stage of the pipeline.

    Raises:
        ConfigError: whatever is wrong, each problem on a line with its whole dotted path.
    """
    from alignlab.config.check import Checker, child

    plugins.load_all()
    resolved, raw = _resolve(cfg)
    checker = Checker(plugins.catalog(plugins.options()))
    _check_top(resolved, checker)
    for key in OBJECTS:
        _check_object(resolved.get(key), raw.get(key), key, checker)
    for name, node in _stages(resolved).items():
        _check_stage(node, child(raw["pipeline"], name), f"pipeline.{name}", checker)
    if resolved.get("stage") is not None:
        _check_stage(resolved["stage"], raw["stage"], "stage", checker)
    checker.raise_problems()
    return Experiment(resolved, _pipeline(resolved, stage))


def _resolve(cfg: Tree) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration with its interpolations resolved, and as it was."""
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise ConfigError("\n".join(f"{key}: needs a value; set {key}=..." for key in missing))
        resolved: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    return resolved, raw


def _check_top(resolved: Mapping[str, Any], checker: Any) -> None:
    for key in resolved:
        if key not in KEYS:
            hint = suggestion(str(key), [k for k in (*KEYS, "experiment") if k != key])
            checker.problems.append(f"{key}: no such key; there are {', '.join(KEYS)}{hint}")
    if isinstance(resolved.get("seed"), int) and not 0 <= resolved["seed"] < 2**63:
        checker.problems.append(f"seed: must be from 0 to 2**63 - 1, got {resolved['seed']}")
    if resolved.get("store_dir") == "":
        checker.problems.append("store_dir: is empty; name a folder")
    for key, wanted in SCALARS.items():
        value = resolved.get(key)
        if not isinstance(value, wanted) or isinstance(value, bool):
            checker.problems.append(f"{key}: expected {wanted.__name__}, got {value!r}")


def _check_object(node: Any, raw: Any, path: str, checker: Any) -> None:
    from alignlab.config.build import is_target

    if is_target(node):
        checker.object(node, raw, path)
    elif node is not None or path in REQUIRED:
        checker.problems.append(f"{path}: expected one of its options or a `_target_`, got {_short(node)}")


def _check_stage(node: Any, raw: Any, path: str, checker: Any) -> None:
    from alignlab.config.build import is_target
    from alignlab.stage import Stage

    if not is_target(node):
        names = ", ".join(checker.catalog.get("stage", ()))
        checker.problems.append(f"{path}: is not a stage, it has no `_target_`; stages: {names}; got {_short(node)}")
        return
    made = checker.object(node, raw, path)
    if made is not None and not issubclass(made, Stage):
        checker.problems.append(f"{path}: {made.__name__} is not a Stage")


def _stages(resolved: Mapping[str, Any]) -> Mapping[str, Any]:
    pipeline = {} if resolved.get("pipeline") is None else resolved["pipeline"]
    if not isinstance(pipeline, Mapping):
        raise ConfigError(f"pipeline: expected stages by name, got {_short(pipeline)}")
    for name in pipeline:
        if not isinstance(name, str) or not STAGE_NAME.fullmatch(name):
            raise ConfigError(f"pipeline: {name!r} is no name of a stage; use letters, digits, '_' and '-'")
    return pipeline


def _pipeline(resolved: Mapping[str, Any], stage: str | None) -> Mapping[str, Any]:
    """The stages, or the only one of experiment=train, which is named after its option."""
    pipeline, alone = _stages(resolved), resolved.get("stage")
    if alone is None:
        if not pipeline:
            names = ", ".join(plugins.catalog(plugins.options()).get("experiment", ()))
            raise ConfigError(f"nothing to run: choose experiment=... ({names}); experiment=train also wants stage=...")
        return pipeline
    if pipeline:
        raise ConfigError(
            f"stage={stage} stands beside a pipeline ({', '.join(pipeline)}); use it with experiment=train, or add it "
            f"to the pipeline with +pipeline.{stage}={stage}"
        )
    return {stage or "stage": alone}


def _short(value: Any) -> str:
    text = repr(redact(value))  # the message ends up in status.json
    return text if len(text) < 80 else f"{text[:77]}..."


def rewritten(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The overrides of a command as Hydra wants them; see `alignlab.overrides`."""
    return rewrite(overrides, plugins.catalog(plugins.options(folders)), top_groups())


def config_folders(config_dir: str | None) -> list[Path]:
    """The folders that `--config-dir` adds: none or one."""
    return [Path(config_dir).absolute()] if config_dir else []
