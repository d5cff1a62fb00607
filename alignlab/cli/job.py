"""One job of the command: an experiment, alone or as part of a sweep.

A job of a sweep that fails does not end the others; the sweep's exit code is 1 then. Whether a job is done is written
in its `status.json`; where that is missing, it is not.
"""

import contextlib
import errno
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from hydra.core.hydra_config import HydraConfig

from alignlab import launched, stopping
from alignlab.cli.outcome import metric_for_sweeper, show, show_job
from alignlab.cli.prepared import Prepared, prepare, shown
from alignlab.cli.search.reporter import Reporter
from alignlab.cli.sweeps.sweep import Sweep
from alignlab.errors import AlignlabError, ConfigError, Preempted, Pruned
from alignlab.pipeline.reserve import reserve
from alignlab.pipeline.run_folder import RunFolder
from alignlab.sanitize import printable, redact_logs, redact_text

OF_THE_MACHINE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)
"""A full disk, a folder that may not be written to: not a bug of ours, so no traceback."""
MOVED: Final = "the run's folder was moved or removed while it ran; the same command continues it"
Tree: TypeAlias = Any
"""OmegaConf's DictConfig; see `alignlab.config.replaced.Tree`."""


class JobFailed(AlignlabError):
    """A job did not complete; its message is printed already, and stands in its `status.json`.

    Args:
        message: of the error.
        code: exit code that the job alone would have had.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def own_task(owner: str, function: Any) -> "Task":
    """The task that a launcher or sweeper of alignlab's was given.

    Raises:
        ConfigError: it is another program's.
    """
    if not isinstance(function, Task):
        raise ConfigError(f"{owner} is alignlab's: it runs the jobs of alignlab alone")
    return function


def has_metric(cfg: Tree) -> bool:
    """Whether the sweeper asked for a metric."""
    return bool((cfg.get("sweep") or {}).get("metric"))


@dataclass(frozen=True)
class Job:
    """Request and place of one job.

    Args:
        path: the run's folder.
        overrides: of this job alone, as typed.
        sweep: the sweep that it belongs to, if any.
        number: within the sweep.
    """

    path: Path
    overrides: Sequence[str] = ()
    sweep: Sweep | None = None
    number: int | None = None

    def shown(self) -> list[str]:
        """The overrides without secrets."""
        return shown(self.overrides)

    def group(self, name: str) -> str:
        """Group of its runs in W&B: `name/DATE-TIME`, from the folder of the run or of its sweep."""
        return f"{name}/{'-'.join((self.sweep.folder if self.sweep else self.path).parts[-2:])}"

    def check_unchanged(self, prepared: Prepared) -> None:
        """Refuse a job of a sweep whose code or data are not those that the sweep began with."""
        from alignlab.cli.sweeps.unchanged import check_unchanged

        if self.sweep is not None and self.number is not None:
            check_unchanged(self.sweep.job(self.number), prepared.steps)

    def marks(self) -> dict[str, str | int]:
        """Entries of `status.json` that tell to which sweep it belongs."""
        return {} if self.sweep is None or self.number is None else self.sweep.marks(self.number)


@dataclass
class Task:
    """Called by Hydra for each job, in this process or in a launcher's worker.

    Args:
        sweep: the sweep of the jobs; None for a single run, whose folder is reserved already.
        prepared: by the overrides of each job; what is missing is prepared when the job begins.
        ended: the error of a single run. It is not raised within Hydra, which would print it with every override.
    """

    sweep: Sweep | None = None
    prepared: dict[tuple[str, ...], Prepared] = field(default_factory=dict)
    ended: JobFailed | Preempted | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state without the parts that cannot be sent to another process."""
        return {"sweep": self.sweep, "prepared": {}}

    def remember(self, cfg: Tree, overrides: Sequence[str]) -> Prepared:
        """Check and plan the configuration of a job that will begin later."""
        made = prepare(cfg, overrides)
        self.prepared[tuple(cfg.hydra.overrides.task)] = made
        return made

    def __call__(self, cfg: Tree) -> float | None:
        """Run the job that Hydra has just set up; the metric that the sweeper asked for.

        Where a launcher (submitit) calls it in several processes, the first one runs the job and the others help.

        Raises:
            JobFailed: it did not complete.
            Preempted: it was asked to stop.
        """
        redact_logs()  # a launcher's worker
        own = launched.place()
        if own is None:
            return self._call(cfg)
        if own.rank > 0:
            from alignlab.pipeline.follower import follow

            if code := follow(own):
                raise JobFailed(f"rank {own.rank}: the job did not complete", code)
            return None
        from alignlab.pipeline.team import led

        with led(own) as leader:
            value = self._call(cfg)
            leader.code = int(self.ended is not None)
            return value

    def _call(self, cfg: Tree) -> float | None:
        hydra = HydraConfig.get()
        path, overrides = Path(hydra.runtime.output_dir), [str(o) for o in hydra.overrides.task]
        if self.sweep is None:
            try:
                return self._run(Job(path, overrides), cfg)
            except (JobFailed, Preempted) as error:
                self.ended = error
                return None
        if request := self.sweep.stopped():
            self._preempted(request)
            return None
        job = Job(path, overrides, self.sweep, int(hydra.job.num))
        try:
            return self._run_in(self.sweep, job, cfg)
        except Preempted as error:
            self._preempted(error)
        except AlignlabError as error:
            if not isinstance(error, JobFailed):
                self.sweep.fail(int(hydra.job.num), str(error), job.shown())
            if has_metric(cfg):
                raise
        # The end of the sweep reports the failures; a sweeper that uses no results would stop at the first one.
        return None

    def _run_in(self, sweep: Sweep, job: Job, cfg: Tree) -> float | None:
        """Run a job of a sweep in its own folder."""
        assert job.number is not None
        with reserve(job.path):
            sweep.register(job.number, job.path, job.shown())
            return self._run(job, cfg)

    def _preempted(self, error: Preempted) -> None:
        """End a sweep that was asked to stop: at once here; in a worker, the job alone has ended."""
        assert self.sweep is not None
        if self.sweep.is_here:
            raise error

    def _run(self, job: Job, cfg: Tree) -> float | None:
        folder = RunFolder(job.path, marks=job.marks())
        watched = contextlib.nullcontext() if job.sweep is None or job.sweep.is_here else job.sweep.watched()
        try:
            with stopping.heard(), watched:
                folder.status("running")
                prepared = self.prepared.pop(tuple(job.overrides), None)
                if prepared is None:
                    prepared = prepare(cfg, job.overrides, HydraConfig.get())
                    job.check_unchanged(prepared)
                value = run(prepared, job, folder)
        except Preempted as error:
            _end(folder, "preempted", error)
            raise
        except Pruned as error:
            folder.status("pruned", reason=str(error))
            print(f"{error}\nrun folder: {folder.path} (pruned)", flush=True)
            return None
        except AlignlabError as error:
            raise _end(folder, "failed", error) from error
        except (BrokenPipeError, SystemExit) as error:
            raise _end(folder, "failed", _why_it_left(error)) from error
        except OSError as error:
            is_there = folder.path.is_dir()
            if is_there and error.errno not in OF_THE_MACHINE:
                traceback.print_exc()
            raise _end(folder, "failed", f"{error if is_there else MOVED}; finished stages are kept") from error
        except Exception as error:
            traceback.print_exc()
            raise _end(folder, "failed", f"{type(error).__name__}: {error}") from error
        folder.status("completed")
        return value


def run(prepared: Prepared, job: Job, folder: RunFolder) -> float | None:
    """Run an experiment into its folder; the metric that the sweeper asked for.

    Raises:
        AlignlabError: a stage failed. What was done before stays done.
    """
    from alignlab.pipeline import provenance
    from alignlab.pipeline.runner import Runner
    from alignlab.pipeline.store import Store
    from alignlab.tracking import Origin

    asked, config = prepared.experiment, prepared.experiment.redacted()
    name = redact_text(asked.name)
    about = {"name": name, "seed": asked.seed, "overrides": job.shown()}
    folder.about = {**about, **provenance.of_now()}
    folder.config(asked.recorded())
    store = Store(asked.store)
    if any(step.again or not store.has(step.fingerprint) for step in prepared.steps):
        prepared.tracking.prepare()
    origin = Origin(name, job.group(name), job.number, config, job.shown())
    began = job.sweep.began if job.sweep else time.time()
    reporter = Reporter.read(job.sweep.records, job.number) if job.sweep and job.number is not None else None
    runner = Runner(prepared.steps, store, folder, prepared.runtime, prepared.tracking, origin, began, reporter)
    runner.run()
    if job.sweep is None:
        show(folder, runner)
    else:
        show_job(folder)
    return metric_for_sweeper(asked.metric, folder.metrics)


def _why_it_left(error: BrokenPipeError | SystemExit) -> str:
    """The reason of an end from within a stage; rich exits when its output is closed (`alignlab ... | head`)."""
    if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
        return f"a stage has called exit({error.code!r}); finished stages are kept"
    return "its output was closed (as by `| head`); finished stages are kept, and the same command continues it"


def _end(folder: RunFolder, status: Any, error: object) -> JobFailed:
    message = redact_text(str(error))
    with contextlib.suppress(OSError):  # a disk so full that there is not even the status of the beginning
        folder.status(status, error=message)
    print(f"alignlab: {printable(message)}\nrun folder: {folder.path} ({status})", file=sys.stderr, flush=True)
    return JobFailed(message)
