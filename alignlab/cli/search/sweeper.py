"""Ask Optuna for values, launch the jobs, tell how they ended."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import OmegaConf

from alignlab.artifact import Artifact
from alignlab.cli.job import JobFailed, Task, own_task
from alignlab.cli.search import ending
from alignlab.cli.search.reporter import Reporter
from alignlab.cli.search.settings import Settings, text
from alignlab.cli.search.trials import Trials
from alignlab.cli.sweeps.sweep import Sweep
from alignlab.config.compose import Session, composing
from alignlab.config.space import SEARCHES, Space
from alignlab.errors import AlignlabError, ConfigError
from alignlab.pipeline.run_folder import FINE
from alignlab.sanitize import printable

if TYPE_CHECKING:
    import optuna

Tree: TypeAlias = Any
"""OmegaConf's DictConfig; see `alignlab.config.replaced.Tree`."""
BASIC_LAUNCHER: Final = "basic"


def check(hydra: Session, overrides: Sequence[str], cfg: Tree) -> None:
    """Check a study, and jobs at every end of its space, before anything is written.

    Args:
        hydra: the session.
        overrides: as typed.
        cfg: of the whole sweep.

    Raises:
        ConfigError: what is wrong.
    """
    settings = _settings(cfg)
    space = _space(cfg, hydra.config_loader)
    settings.check(str(cfg.sweep.metric), space)
    if settings.n_jobs > 1 and cfg.hydra.runtime.choices.get("hydra/launcher") == BASIC_LAUNCHER:
        raise ConfigError(
            f"hydra.sweeper.n_jobs={settings.n_jobs}: hydra/launcher=basic runs one job after the other; add "
            f"hydra/launcher=joblib hydra.launcher.n_jobs={settings.n_jobs}"
        )
    for job in space.corners():
        hydra.config_loader.load_sweep_config(cfg, job)


def _settings(cfg: Tree) -> Settings:
    given: Any = OmegaConf.to_container(cfg.hydra.sweeper, resolve=True)
    try:
        return Settings(**{key: value for key, value in given.items() if key != "_target_"})
    except TypeError as error:
        raise ConfigError(f"hydra/sweeper=optuna: {str(error).partition('() ')[2] or error}") from error


def _space(cfg: Tree, loader: Any) -> Space:
    return Space.read([str(o) for o in cfg.hydra.overrides.task], cfg.hydra.sweeper.params, loader)


class SearchSweeper(Sweeper):
    """Runs a study; see `conf/hydra/sweeper/optuna.yaml` for the arguments."""

    config: Tree
    hydra_context: HydraContext
    launcher: Launcher
    task: Task

    def __init__(self, **arguments: Any) -> None:
        self.settings = Settings(**arguments)

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: Tree) -> None:
        """Take what the jobs need.

        Raises:
            ConfigError: another program of Hydra's uses it.
        """
        self.config, self.hydra_context, self.task = config, hydra_context, own_task(SEARCHES, task_function)
        self.settings = _settings(config)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are enough.

        Raises:
            JobFailed: one has failed, or none has completed.
        """
        assert self.task.sweep is not None
        self.space = Space.read(arguments, self.config.hydra.sweeper.params, self.hydra_context.config_loader)
        self.metric = str(self.config.sweep.metric)
        storage = self.settings.place(self.task.sweep.folder)
        self.trials = Trials(self.settings, self.space, self.metric, storage)
        if self.settings.pruner != "none":
            Reporter.of(self.settings, self.metric, storage).write(self.task.sweep.records)
        self.failed = list[str]()
        self._list_earlier(self.task.sweep, f"{self.settings.study_name} of {self.settings.storage or 'its folder'}")
        self._say(storage)
        self._run()
        self._end(self.task.sweep.folder)

    def _say(self, storage: str) -> None:
        lost, done = self.trials.take_over(), self.trials.count("COMPLETE") + self.trials.count("PRUNED")
        again = f", {lost} that were lost run again" if lost else ""
        print(f"study: {storage}; {done} of {self.settings.n_trials} trials are done{again}", flush=True)

    def _list_earlier(self, sweep: Sweep, study: str) -> None:
        """Enter the trials of earlier commands into the sweep, so that its table has the whole study."""
        for before in (other for other in sweep.others() if other.about.get("study") == study):
            for job in (job for job in before.jobs() if job["status"] in FINE):
                sweep.expect(job["job"], Path(job["folder"]), job["overrides"], sweep=job.get("sweep", before.id))
        sweep.add_note(study=study)

    # ---- trials -----------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        in_a_row = 0
        while (left := self.trials.left()) > 0 and not self._is_stopped():
            batch = [self.trials.ask() for _ in range(min(self.settings.n_jobs, left))]
            before = len(self.failed)
            self._launch(batch)
            failed = len(self.failed) - before
            in_a_row = in_a_row + failed if failed == len(batch) else 0
            if in_a_row >= self.settings.max_failures:
                print(f"{in_a_row} trials in a row have failed: the study ends here", file=sys.stderr, flush=True)
                break

    def _is_stopped(self) -> bool:
        return self.task.sweep is not None and self.task.sweep.stopped() is not None

    def _launch(self, batch: "Sequence[optuna.Trial]") -> None:
        """Run trials at the same time, as jobs of the same numbers, and tell how each ended."""
        ready = [(trial, job) for trial in batch if (job := self._job(trial))]
        for run in _runs(ready):
            self.launcher.launch([job for _, job in run], initial_job_idx=run[0][0].number)
        for trial, _ in ready:
            self._tell(trial)

    def _job(self, trial: "optuna.Trial") -> list[str]:
        """The overrides of a trial; none where its values do not go together."""
        values = [(p, trial.params[p.key]) for p in self.space.parameters]
        job = [*self.space.fixed, *(p.override(text(p, value)) for p, value in values)]
        try:
            with composing():
                self.validate_batch_is_legal([job])
        except AlignlabError as error:
            self._fail(trial, str(error))
            return []
        return job

    def _tell(self, trial: "optuna.Trial") -> None:
        """Tell how a trial ended; one that was asked to stop is left running, and is tried again later."""
        assert self.task.sweep is not None
        found = {job["job"]: job for job in self.task.sweep.jobs()}.get(trial.number, {"status": "failed"})
        status = found["status"]
        if status == "pruned":
            self.trials.tell(trial, "PRUNED")
        elif status == "completed":
            self.trials.tell(trial, "COMPLETE", _metric(Path(found["folder"]), self.metric))
        elif not (self._is_stopped() and status in ("preempted", "failed", "not run", "missing")):
            self._fail(trial)

    def _fail(self, trial: "optuna.Trial", why: str = "") -> None:
        self.trials.tell(trial, "FAIL")
        self.failed.append(str(trial.number))
        if why:
            print(f"trial {trial.number}: {printable(why)}", file=sys.stderr, flush=True)

    def _end(self, folder: Path) -> None:
        if self._is_stopped():
            return
        flags = getattr(self.hydra_context.config_loader, "flags", [])
        ending.show(self.trials, self.metric, folder, flags)
        if self.failed:
            raise JobFailed(f"trials {', '.join(self.failed)} have failed")


def _runs(jobs: "Sequence[tuple[optuna.Trial, list[str]]]") -> "Iterator[Sequence[tuple[optuna.Trial, list[str]]]]":
    """Jobs whose numbers follow each other, together: launchers count on by themselves."""
    first = 0
    for i in range(1, len(jobs) + 1):
        if i == len(jobs) or jobs[i][0].number != jobs[i - 1][0].number + 1:
            yield jobs[first:i]
            first = i


def _metric(folder: Path, name: str) -> float:
    """The metric of a job that has completed."""
    return Artifact(folder, "other", "").metrics()[name]
