"""Run experiments and sweeps through Hydra: `alignlab` without the name of a command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from alignlab.cli import unsent
from alignlab.cli.arguments import check_flags
from alignlab.cli.completion import handled
from alignlab.cli.folders import is_named
from alignlab.cli.job import JobFailed, Task
from alignlab.cli.sweeps.run import run_sweep
from alignlab.config.compose import Session, session
from alignlab.config.grammar import parse
from alignlab.config.internals import get_args_parser
from alignlab.config.recorded import recorded_root
from alignlab.errors import ConfigError
from alignlab.pipeline.reserve import reserve


def run(arguments: Sequence[str]) -> int:
    """Run what the arguments ask for; the exit code."""
    config, arguments = recorded_config(arguments)
    asked = _parsed(arguments)
    folders = config_folders(asked.config_dir)
    if asked.shell_completion and handled(asked.overrides):
        return 0
    with recorded_root(config, asked.overrides) as root, session(asked.overrides, folders, root) as hydra:
        hydra.config_loader.flags = _flags(config, asked.config_dir)
        if _is_to_show(asked):
            return _show(asked, hydra)
        overrides = [p.input_line for p in parse(asked.overrides)]
        return run_sweep(hydra, overrides) if asked.multirun else _run(hydra, overrides)


def config_folders(config_dir: str | None) -> list[Path]:
    """The folders that `--config-dir` adds: none or one."""
    return [Path(config_dir).absolute()] if config_dir else []


def _flags(config: Path | None, config_dir: str | None) -> list[str]:
    """The flags that a command with the same configuration needs."""
    given = {"--config": str(config or ""), "--config-dir": config_dir or ""}
    return [word for flag, value in given.items() if value for word in (flag, value)]


def recorded_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file given by `--config FILE`, and all other arguments."""
    rest, files, words = [], list[str](), iter(arguments)
    for word in words:
        if word == "--config":
            files.append(next(words, ""))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    if len(files) > 1 or files == [""]:
        raise ConfigError("--config takes one file: alignlab --config RUN/config.yaml [KEY=VALUE ...]")
    return (Path(files[0]) if files else None), rest


# ---- arguments -------------------------------------------------------------------------------------------------------
def _parsed(arguments: Sequence[str]) -> Any:
    """Hydra's reading of the arguments.

    Raises:
        ConfigError: a flag is unknown or not taken; the message says how to write it.
    """
    check_flags(arguments)
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign, assignment]
    asked = parser.parse_intermixed_args(list(arguments))
    if asked.config_path or asked.config_name:
        raise ConfigError(
            "alignlab composes from its own root and takes neither --config-path nor --config-name; put your options "
            "into a folder and add that with --config-dir FOLDER"
        )
    return asked


def _refuse(message: str) -> None:
    raise ConfigError(f"{message}; `alignlab --help` lists the flags")


def _is_to_show(asked: Any) -> bool:
    """Whether a flag asks to print something instead of running."""
    wanted = [bool(getattr(asked, name)) for name in ("cfg", "info", "shell_completion", "hydra_help")]
    if sum(wanted) + bool(asked.multirun) > 1:
        raise ConfigError("only one of --multirun, --cfg, --info, --shell-completion and --hydra-help can be given")
    return any(wanted)


def _show(asked: Any, hydra: Session) -> int:
    if asked.cfg == "job":
        return print_config(hydra, asked.overrides, bool(asked.resolve), asked.package)
    if asked.cfg:
        hydra.show_cfg(hydra.root, asked.overrides, asked.cfg, asked.package, asked.resolve)
    elif asked.info:
        hydra.show_info(asked.info, hydra.root, asked.overrides)
    elif asked.shell_completion:
        hydra.shell_completion(hydra.root, asked.overrides)
    else:
        hydra.hydra_help(hydra.root, get_args_parser(), asked)
    return 0


def print_config(hydra: Session, overrides: Sequence[str], resolve: bool, package: str | None) -> int:
    """Print the configuration, or a part of it, as a run would take it (`--cfg job`)."""
    cfg = hydra.compose(overrides)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    node = OmegaConf.select(cfg, package) if package else cfg
    print(OmegaConf.to_yaml(node, resolve=resolve) if OmegaConf.is_config(node) else node, end="")
    return 0


# ---- running ---------------------------------------------------------------------------------------------------------
def _run(hydra: Session, overrides: list[str]) -> int:
    """Run one experiment: everything is checked before its folder is made."""
    cfg = hydra.compose(overrides, is_checked=False)
    if cfg.hydra.mode == RunMode.MULTIRUN:
        return run_sweep(hydra, overrides)
    hydra.config_loader.validate_sweep_overrides_legal(parse(overrides), RunMode.RUN, from_shell=True)
    task = Task()
    task.remember(cfg, overrides)
    with reserve(Path(cfg.hydra.run.dir).absolute(), is_named(cfg.hydra.run)) as folder:
        with read_write(cfg.hydra):
            cfg.hydra.run.dir = str(folder)
        hydra.config_loader.keep(cfg, RunMode.RUN, overrides)
        hydra.run(hydra.root, task, overrides)
    unsent.tell([folder])
    if isinstance(task.ended, JobFailed):
        return task.ended.code
    if task.ended is not None:
        raise task.ended
    return 0
