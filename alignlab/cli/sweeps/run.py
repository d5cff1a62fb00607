"""Run a sweep through Hydra: every job is checked before the first one starts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from hydra.types import RunMode
from omegaconf import read_write

from alignlab.cli import unsent
from alignlab.cli.counting import counted
from alignlab.cli.folders import is_named
from alignlab.cli.job import JobFailed, Task, has_metric
from alignlab.cli.sweeps.end import finish
from alignlab.cli.sweeps.jobs import Earlier, Planned, compared, latest, planned
from alignlab.cli.sweeps.launch import check_launcher, launch
from alignlab.cli.sweeps.sweep import Sweep
from alignlab.config.compose import Session
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


def run_sweep(hydra: Session, overrides: list[str]) -> int:
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
    is_fixed = hydra.config_loader.sweep_dir is not None or is_named(cfg.hydra.sweep)
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
    folder = Path(cfg.hydra.sweep.dir).absolute() if is_named(cfg.hydra.sweep) else latest(cfg, overrides)
    if folder is None:
        print("sweep.resume: there is no earlier sweep with these overrides; a new one begins", flush=True)
        return Earlier()
    hydra.config_loader.sweep_dir = str(folder)
    with read_write(cfg.hydra):
        cfg.hydra.sweep.dir = str(folder)
    return Earlier.of(folder)


def _composed(hydra: Session, overrides: Sequence[str], master: Tree) -> Iterator[tuple[Tree, list[str]]]:
    """Configuration and overrides of each job of Hydra's basic sweeper; the launcher finds them composed."""
    for job in counted(hydra.expanded(overrides)):
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


def _code(action: Callable[[], object]) -> int:
    """The exit code of an action whose failure may have been printed already."""
    try:
        action()
    except JobFailed as error:
        return error.code
    return 0
