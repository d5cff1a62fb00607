"""Run experiments and sweeps through Hydra: `alignlab` without the name of a command."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from alignlab.cli import unsent
from alignlab.cli.arguments import check_flags
from alignlab.cli.completion import handled
from alignlab.cli.expected import Earlier, Planned, compared, latest, planned
from alignlab.cli.job import JobFailed, Task, has_metric
from alignlab.cli.launching import check_launcher, launch
from alignlab.cli.sweep import Sweep
from alignlab.cli.sweep_end import finish
from alignlab.config.compose import Session, session
from alignlab.config.grammar import parse
from alignlab.config.internals import get_args_parser
from alignlab.config.recorded import recorded_root
from alignlab.config.replaced import Tree
from alignlab.config.space import SEARCHES
from alignlab.errors import ConfigError
from alignlab.pipeline.reserve import reserve

BASIC: Final = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""Hydra's own sweeper: all its jobs are known before the first one starts."""
OPTIMIZERS: Final = (
    "hydra_plugins.alignlab_sweepers",
    "hydra_plugins.hydra_optuna_sweeper",
    "hydra_plugins.hydra_ax_sweeper",
    "hydra_plugins.hydra_nevergrad",
)
"""Packages of sweepers that choose values by the results of earlier jobs."""


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
        return _sweep(hydra, overrides) if asked.multirun else _run(hydra, overrides)


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
        return _sweep(hydra, overrides)
    hydra.config_loader.validate_sweep_overrides_legal(parse(overrides), RunMode.RUN, from_shell=True)
    task = Task()
    task.remember(cfg, overrides)
    with reserve(Path(cfg.hydra.run.dir).absolute(), _is_fixed(cfg.hydra.run)) as folder:
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


def _is_fixed(node: Tree) -> bool:
    """Whether the user named the folder (`hydra.run`, `hydra.sweep`); otherwise it is named after the time."""
    raw: Any = OmegaConf.to_container(node, resolve=False)
    return "${now:" not in str(raw["dir"])


def _code(action: Callable[[], object]) -> int:
    """The exit code of an action whose failure may have been printed already."""
    try:
        action()
    except JobFailed as error:
        return error.code
    return 0


def _sweep(hydra: Session, overrides: list[str]) -> int:
    """Run a sweep; every job is checked before the first one starts, as far as its values are known by then."""
    if not any(o.startswith("hydra.mode=") for o in overrides):
        overrides = [*overrides, "hydra.mode=MULTIRUN"]
    cfg = hydra.compose(overrides, RunMode.MULTIRUN)
    check_launcher(cfg)
    _check_sweeper(cfg)
    task = Task()
    hydra.config_loader.on_job = task.remember
    earlier = _resumed(hydra, cfg, overrides)
    target = str(cfg.hydra.sweeper.get("_target_"))
    is_known = target == BASIC
    if target == SEARCHES:
        from alignlab.cli.search import sweeper

        sweeper.check(hydra, overrides, cfg)
    jobs = planned(task, _composed(hydra, overrides, cfg), earlier) if is_known else []
    is_fixed = hydra.config_loader.sweep_dir is not None or _is_fixed(cfg.hydra.sweep)
    with reserve(Path(cfg.hydra.sweep.dir).absolute(), is_fixed) as folder:
        pass  # several sweeps may share a folder that the user named; their jobs have folders of their own
    task.sweep = _begun(Sweep(folder), overrides, jobs)
    hydra.config_loader.sweep_dir = str(folder)
    hydra.config_loader.keep(cfg, RunMode.MULTIRUN, overrides)
    return _run_jobs(hydra, task, task.sweep, overrides, jobs if is_known else None)


def _run_jobs(hydra: Session, task: Task, sweep: Sweep, overrides: list[str], jobs: Sequence[Planned] | None) -> int:
    """Run jobs, or what a sweeper chooses where they are not known; the exit code."""

    def action() -> None:
        if jobs is None:
            hydra.multirun(hydra.root, task, overrides)
        else:
            todo = [(job.number, job.overrides) for job in jobs if job.kept is None]
            launch(hydra, hydra.compose(overrides, RunMode.MULTIRUN), task, todo)

    code = 1
    try:
        with sweep.stoppable():
            code = _code(action)
    finally:
        for job in (job for job in jobs or () if not sweep.has(job.number)):
            job.expect(sweep)
        code = max(code, finish(sweep, resumes=jobs is not None))
        unsent.tell(Path(job["folder"]) for job in sweep.jobs())
    return code


def _resumed(hydra: Session, cfg: Tree, overrides: Sequence[str]) -> Earlier:
    """Records of the sweep that is resumed; its folder becomes that of this one.

    Raises:
        ConfigError: the sweeper's jobs are not known beforehand.
    """
    if not (cfg.get("sweep") or {}).get("resume"):
        return Earlier()
    if str(cfg.hydra.sweeper.get("_target_")) != BASIC:
        raise ConfigError(
            f"sweep.resume: hydra/sweeper={cfg.hydra.runtime.choices.get('hydra/sweeper')} chooses its jobs by the "
            f"results of earlier ones; only a sweep over given values can be resumed by it"
        )
    folder = Path(cfg.hydra.sweep.dir).absolute() if _is_fixed(cfg.hydra.sweep) else latest(cfg, overrides)
    if folder is None:
        print("sweep.resume: there is no earlier sweep with these overrides; a new one begins", flush=True)
        return Earlier()
    hydra.config_loader.sweep_dir = str(folder)
    with read_write(cfg.hydra):
        cfg.hydra.sweep.dir = str(folder)
    return Earlier.of(folder)


def _composed(hydra: Session, overrides: Sequence[str], master: Tree) -> Iterator[tuple[Tree, list[str]]]:
    """Configuration and overrides of each job of Hydra's basic sweeper; the launcher finds them composed."""
    for job in hydra.expanded(overrides):
        cfg = hydra.config_loader.load_sweep_config(master, job)
        hydra.config_loader.keep(cfg, RunMode.RUN, job)
        yield cfg, job


def _begun(sweep: Sweep, overrides: Sequence[str], jobs: Sequence[Planned]) -> Sweep:
    """The sweep with a record of each of its jobs."""
    sweep.note(compared(overrides))
    for job in jobs:
        job.expect(sweep)
    if kept := sum(job.kept is not None for job in jobs):
        print(f"{sweep.folder}: {kept} of {len(jobs)} jobs are complete; {len(jobs) - kept} to run", flush=True)
    return sweep


def _check_sweeper(cfg: Tree) -> None:
    """Refuse a sweeper that needs a metric where none is set; otherwise it would fail after all jobs have trained."""
    target = str(cfg.hydra.sweeper.get("_target_", ""))
    if target.startswith(OPTIMIZERS) and not has_metric(cfg):
        raise ConfigError(
            f"hydra/sweeper={cfg.hydra.runtime.choices.get('hydra/sweeper')} chooses values by a metric; set "
            f"sweep.metric=STAGE/METRIC, such as sweep.metric=dpo/validation_loss"
        )
