"""Sessions of Hydra: compose configurations and expand sweeps."""

import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import hydra
import omegaconf
import yaml
from hydra import version
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from alignlab.config import options
from alignlab.config.grammar import parse
from alignlab.config.internals import BasicSweeper, Hydra, create_config_search_path
from alignlab.config.loader import NAME, Loader
from alignlab.config.replaced import Tree
from alignlab.config.space import SEARCHES, Space
from alignlab.errors import ConfigError

VERSION_BASE: Final = "1.3"


class Session(Hydra):
    """Hydra, set up for one command.

    Args:
        typed: the overrides of the command.
        folders: of options, that the command was given.
        root: file of the root configuration, where it is not alignlab's own.
    """

    config_loader: Loader

    def __init__(self, typed: Sequence[str] = (), folders: Sequence[Path] = (), root: Path | None = None) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The version_base parameter is deprecated")  # in 1.4, not in 1.3
            version.setbase(VERSION_BASE)
        search_path = create_config_search_path(None)
        places = [*options.roots(folders), *([("--config", root.parent)] if root else [])]
        for package, conf in places:  # `file://`: Hydra's `pkg://` wants an `__init__.py` in them
            provider = "command-line" if package == options.OWN else package
            search_path.prepend(provider, f"file://{conf}", SearchPathQuery(provider="schema"))
        loader = Loader(search_path, folders, typed, is_guarded=root is not None)
        super().__init__(task_name="alignlab", config_loader=loader)
        self.root = root.stem if root else NAME

    def compose(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN, is_checked: bool = True) -> Tree:
        """The configuration of some overrides, with Hydra's section.

        Args:
            overrides: as typed.
            mode: of a run, or of a sweep as a whole.
            is_checked: refuse values that are meant for a sweep.
        """
        return self.compose_config(
            self.root, list(overrides), run_mode=mode, validate_sweep_overrides=is_checked and mode == RunMode.RUN
        )

    def compose_config(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        with_log_configuration: bool = False,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
        **_: Any,
    ) -> Tree:
        """By alignlab's loader, whatever Hydra composes for: 1.4 would go past it where it runs or sweeps."""
        cfg = self.config_loader.load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        if with_log_configuration:
            configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
        return cfg

    def expanded(self, overrides: Sequence[str]) -> list[list[str]]:
        """The overrides of every job of a sweep, as Hydra's basic sweeper has them: without those of the command for
        Hydra's own section.

        A value that only another sweeper can choose (an interval) is set to its lower end. Of a study, there is a job
        for each end of its space.
        """
        sweeper = self.compose(overrides, RunMode.MULTIRUN).hydra.sweeper
        if str(sweeper.get("_target_")) == SEARCHES:
            typed = [o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]
            return list(Space.read(typed, sweeper.get("params"), self.config_loader).corners())
        params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
        parsed = parse([*params, *(o for o in overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/")))])
        for override in parsed:
            override.config_loader = self.config_loader
        fixed = [_at_lower_end(o) if o.is_interval_sweep() else o for o in parsed]
        return [list(job) for batch in BasicSweeper.split_arguments(fixed, None) for job in batch]


def _at_lower_end(override: Any) -> Any:
    return parse([f"{override.get_key_element()}={override.value().start}"])[0]


@contextmanager
def session(typed: Sequence[str] = (), folders: Sequence[Path] = (), root: Path | None = None) -> Iterator[Session]:
    """Hydra, set up for one command; its errors come out as `ConfigError`.

    Args:
        typed: the overrides of the command.
        folders: of options, that the command was given.
        root: file of the root configuration, where it is not alignlab's own.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: no such folder: {folder}")
    with composing():
        found = Session(typed, folders, root)
        GlobalHydra.instance().clear()
        GlobalHydra.instance().initialize(found)
        try:
            yield found
        finally:
            GlobalHydra.instance().clear()


# ---- errors ----------------------------------------------------------------------------------------------------------
@contextmanager
def composing() -> Iterator[None]:
    """Errors of Hydra, and files that are not configuration, as one message."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if ours := _cause_of_ours(error):
            raise ours from None
        raise ConfigError(_of_hydra(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"a file of options is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError("the defaults lists form a cycle; does a file of options include itself?") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ConfigError(f"{error}; choose another folder (hydra.run.dir, hydra.sweep.dir)") from error
        if not _raised_by_hydra(error):
            raise
        raise ConfigError(f"the configuration cannot be composed ({type(error).__name__}: {error})") from error


def _cause_of_ours(error: BaseException) -> ConfigError | None:
    """An error of ours that Hydra has wrapped."""
    step: BaseException | None = error
    while step is not None and not isinstance(step, ConfigError):
        step = step.__cause__
    return step


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra failed on its input: its own code raised, not ours."""
    last = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)][-1:]
    homes = [Path(str(module.__file__)).parent for module in (hydra, omegaconf, yaml)]
    return any(file.is_relative_to(home) for file in last for home in homes)


def _of_hydra(error: BaseException) -> str:
    """Hydra's message and its cause's, each once, without its search path."""
    found: list[str] = []
    step: BaseException | None = error
    while step is not None:
        text = str(step).partition("\n\n")[0].strip()  # Hydra's search path would follow
        if text and not any(text in other for other in found):
            found.append(text)
        step = step.__cause__
    return "\n".join(found)
