"""One job of the command: what Hydra calls with a composed configuration, alone or as part of a sweep.

A job of a sweep that fails does not end the others; the sweep's exit code says so in the end. Whether a job is done
stands in its `status.json`; where that is missing, it is not.
"""

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from alignlab import stopping
from alignlab.artifact import REPORT
from alignlab.config import replaced
from alignlab.errors import AlignlabError, Preempted
from alignlab.pipeline.run_folder import RunFolder, read_status
from alignlab.sanitize import printable, redact, redact_override

if TYPE_CHECKING:
    from alignlab.pipeline.runner import Runner

OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE)
"""A full disk, a folder that may not be written to: no bug of ours, and no traceback."""
Tree: TypeAlias = Any
"""OmegaConf's DictConfig; see `alignlab.config.Tree`."""
_process: dict[str, int] = {}
_unfinished: list[Path] = []


def begin() -> None:
    """Before Hydra runs: nothing has failed yet, and this is the process whose exit code counts."""
    _process["id"] = os.getpid()
    _unfinished.clear()


def exit_code() -> int:
    """After Hydra ran: 1 where a job of a sweep is not complete."""
    return 1 if _unfinished else 0


@dataclass(frozen=True)
class Job:
    """What one job was asked for, and where it belongs.

    Args:
        path: the run's folder.
        overrides: of this job alone, rewritten.
        stage: chosen option of the group `stage`.
        folders: of options, that the command was given.
        searchpath: overrides of Hydra's own search path.
        sweep: the folder of the sweep that it belongs to, if any.
        number: within the sweep.
    """

    path: Path
    overrides: Sequence[str] = ()
    stage: str | None = None
    folders: Sequence[Path] = ()
    searchpath: Sequence[str] = ()
    sweep: Path | None = None
    number: int | None = None

    @classmethod
    def of_hydra(cls) -> "Job":
        """The job that Hydra is running."""
        hydra = HydraConfig.get()
        sources = hydra.runtime.config_sources
        folders = [Path(s.path) for s in sources if s.provider == "command-line" and s.schema == "file"]
        searchpath = [str(o) for o in hydra.overrides.hydra if "hydra.searchpath" in str(o)]
        given = [str(o) for o in hydra.overrides.task], hydra.runtime.choices.get("stage"), folders, searchpath
        if hydra.mode != RunMode.MULTIRUN:
            return cls(Path(hydra.runtime.output_dir), *given)
        return cls(Path(hydra.runtime.output_dir), *given, Path(hydra.sweep.dir).absolute(), int(hydra.job.num))

    def typed(self) -> list[str]:
        """The overrides as a reader knows them, without secrets."""
        return [redact_override(o.removeprefix("++")) for o in self.overrides]

    def group(self, name: str) -> str:
        """What W&B groups it by: `name/DATE-TIME`, from the folder of the run or of its sweep."""
        return f"{name}/{'-'.join((self.sweep or self.path).parts[-2:])}"


def task(cfg: Tree) -> None:
    """What Hydra calls. Raises SystemExit where the command shall end with an error."""
    job = Job.of_hydra()
    code = run(cfg, job)
    if code > 1 and os.getpid() != _process.get("id"):
        raise Preempted("asked to stop", code)  # a launcher's worker: its parent must hear of it
    if code and (code > 1 or job.sweep is None):
        raise SystemExit(code)


def run(cfg: Tree, job: Job) -> int:
    """Run an experiment, composed by Hydra, into its folder; the exit code. What happens stands in `status.json`."""
    folder = RunFolder(job.path)
    try:
        with stopping.heard():
            folder.status("running")
            _run(replaced.drop_settings_of_replaced(cfg, job.overrides, job.folders, job.searchpath), job, folder)
    except Preempted as error:
        return _end(folder, "preempted", error, error.code)
    except (AlignlabError, HydraException, OmegaConfBaseException) as error:
        return _end(folder, "failed", error, 1)
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            traceback.print_exc()
        return _end(folder, "failed", f"{error}; finished stages are kept", 1)
    except Exception as error:
        traceback.print_exc()
        return _end(folder, "failed", f"{type(error).__name__}: {error}", 1)
    folder.status("completed")
    return 0


def _run(cfg: Tree, job: Job, folder: RunFolder) -> None:
    from alignlab.config import compose
    from alignlab.config.build import Builder
    from alignlab.pipeline import provenance
    from alignlab.pipeline.plan import plan
    from alignlab.pipeline.runner import Runner
    from alignlab.pipeline.store import Store
    from alignlab.tracking import Origin

    experiment = compose.check(cfg, job.stage)
    whole = experiment.config
    seed = whole["seed"]
    folder.about = {
        "name": experiment.name,
        "seed": seed,
        "overrides": job.typed(),
        **provenance.of_now(),
    }
    folder.config(redact(whole))
    build = Builder().build
    runtime, tracking = build(whole["runtime"], "runtime"), build(whole["tracking"], "tracking")
    steps = plan(experiment.pipeline, runtime)
    store = Store(Path(whole["store_dir"]))
    if not all(store.has(step.fingerprint) for step in steps):
        tracking.prepare()
    origin = Origin(experiment.name, job.group(experiment.name), job.number, redact(whole), job.typed())
    runner = Runner(steps, store, folder, runtime, tracking, origin)
    runner.run()
    _show(folder, runner)


def _show(folder: RunFolder, runner: "Runner") -> None:
    """The table of stages and their headline metrics, where everything is, and what to do with it."""
    from rich.console import Console

    from alignlab.report.run import RunView
    from alignlab.report.table import final_table

    console = Console()
    table = final_table(RunView.of(runner.artifacts))
    if table is not None:
        console.print(table)
    lines = [f"run folder: {folder.path}"]
    if (folder.path / REPORT).is_file():
        lines.append(f"report: {folder.path / REPORT}")
    if policies := [name for name, made in runner.artifacts.items() if made.kind == "policy"]:
        lines.append(f"talk to a model: alignlab chat {shlex.quote(str(folder.path))} {policies[-1]}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _end(folder: RunFolder, status: Any, error: object, code: int) -> int:
    folder.status(status, error=redact(str(error)))
    print(f"alignlab: {printable(str(error))}\nrun folder: {folder.path} ({status})", file=sys.stderr, flush=True)
    return code


class SweepEnd(Callback):
    """At the end of a sweep: how each job stands, and whether all are complete."""

    def on_multirun_end(self, config: Tree, **_: Any) -> None:
        """List the jobs; remember those that are not complete for the exit code."""
        folders = sorted(f for f in Path(config.hydra.sweep.dir).iterdir() if f.is_dir() and f.name[0] != ".")
        states = {f: read_status(f) for f in folders}
        _unfinished.extend(f for f, state in states.items() if state != "completed")
        for folder, state in states.items():
            print(f"{state:>10}  {folder}", file=sys.stderr)
