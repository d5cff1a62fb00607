"""One job of the command: what Hydra calls with a composed configuration, alone or as part of a sweep.

A job of a sweep that fails does not end the others; the sweep's exit code says so in the end. Whether a job is done
stands in its `status.json`; where that is missing, it is not.
"""

import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from alignlab.errors import AlignlabError, Preempted
from alignlab.run_folder import REPORT, RunFolder, read_status
from alignlab.trackers.redact import redact, redact_override

if TYPE_CHECKING:
    from alignlab.lifecycle import Lifecycle

PREEMPTED: Final = 143
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


def task(cfg: Tree) -> None:
    """What Hydra calls. Raises SystemExit where the command shall end with an error."""
    hydra = HydraConfig.get()
    stage = hydra.runtime.choices.get("stage")
    overrides = [str(o).removeprefix("++") for o in hydra.overrides.task]
    path, job, group = Path(hydra.runtime.output_dir), None, None
    if hydra.mode == RunMode.MULTIRUN:
        job, group = int(hydra.job.num), Path(hydra.sweep.dir).absolute()
    code = run(cfg, stage, overrides, path, group, job)
    if code == PREEMPTED and os.getpid() != _process.get("id"):
        raise Preempted("asked to stop")  # a launcher's worker: its parent must hear of it
    if code and (code != 1 or hydra.mode != RunMode.MULTIRUN):
        raise SystemExit(code)


def run(
    cfg: Tree,
    stage: str | None,
    overrides: Sequence[str],
    path: Path,
    sweep: Path | None = None,
    job: int | None = None,
) -> int:
    """Run an experiment into a folder; the exit code. Whatever happens stands in `status.json`.

    Args:
        cfg: composed.
        stage: chosen option of the group `stage`.
        overrides: as typed.
        path: the run's folder.
        sweep: the folder of the sweep that it belongs to, if any, whose jobs W&B groups.
        job: number within the sweep.
    """
    folder = RunFolder(path)
    try:
        with _stopping():
            folder.status("running")
            _run(cfg, stage, overrides, folder, sweep or path, job)
    except Preempted as error:
        return _end(folder, "preempted", error, PREEMPTED)
    except KeyboardInterrupt:
        return _end(folder, "preempted", "interrupted from the keyboard", 130)
    except (AlignlabError, HydraException, OmegaConfBaseException) as error:
        return _end(folder, "failed", error, 1)
    except Exception as error:
        traceback.print_exc()
        return _end(folder, "failed", f"{type(error).__name__}: {error}", 1)
    folder.status("completed")
    return 0


def _run(
    cfg: Tree, stage: str | None, overrides: Sequence[str], folder: RunFolder, grouped: Path, job: int | None
) -> None:
    from alignlab import config, provenance
    from alignlab.instantiate import Builder
    from alignlab.lifecycle import Lifecycle
    from alignlab.pipeline import plan
    from alignlab.store import Store
    from alignlab.tracking import Origin

    experiment = config.check(cfg, stage)
    whole = experiment.config
    seed = whole["seed"]
    folder.about = {
        "name": experiment.name,
        "seed": seed,
        "overrides": [redact_override(o) for o in overrides],
        **provenance.of_now(),
    }
    folder.config(redact(whole))
    build = Builder().build
    runtime, tracking = build(whole["trainer"], "trainer"), build(whole["tracking"], "tracking")
    steps = plan(experiment.pipeline, runtime)
    store = Store(Path(whole["store_dir"]))
    if not all(store.has(step.fingerprint) for step in steps):
        tracking.prepare()
    origin = Origin(experiment.name, _group(experiment.name, grouped), job, redact(whole), overrides)
    lifecycle = Lifecycle(steps, store, folder, runtime, tracking, origin)
    lifecycle.run()
    _show(folder, lifecycle)


def _group(name: str, path: Path) -> str:
    """`name/DATE-TIME`, from the folder of a run or of a sweep."""
    return f"{name}/{'-'.join(path.parts[-2:])}"


def _show(folder: RunFolder, lifecycle: "Lifecycle") -> None:
    """The table of stages and their headline metrics, where everything is, and what to do with it."""
    from rich.console import Console

    from alignlab.report.table import final_table

    console = Console()
    table = final_table(folder.metrics, {s.name: s.inputs.get("policy", "") for s in lifecycle.steps})
    if table is not None:
        console.print(table)
    lines = [f"run folder: {folder.path}"]
    if (folder.path / REPORT).is_file():
        lines.append(f"report: {folder.path / REPORT}")
    if policies := [name for name, made in lifecycle.artifacts.items() if made.kind == "policy"]:
        lines.append(f"talk to a model: alignlab chat {shlex.quote(str(folder.path))} {policies[-1]}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _end(folder: RunFolder, status: Any, error: object, code: int) -> int:
    folder.status(status, error=redact(str(error)))
    print(f"alignlab: {error}\nrun folder: {folder.path} ({status})", file=sys.stderr, flush=True)
    return code


@contextmanager
def _stopping() -> Iterator[None]:
    """Turn SIGTERM into `Preempted`; only a process's main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows must be able to finish
        raise Preempted("asked to stop (SIGTERM); what is done is kept, and the same command goes on from there")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class SweepEnd(Callback):
    """At the end of a sweep: how each job stands, and whether all are complete."""

    def on_multirun_end(self, config: Tree, **_: Any) -> None:
        """List the jobs; remember those that are not complete for the exit code."""
        folders = sorted(f for f in Path(config.hydra.sweep.dir).iterdir() if f.is_dir())
        states = {f: read_status(f) for f in folders}
        _unfinished.extend(f for f, state in states.items() if state != "completed")
        for folder, state in states.items():
            print(f"{state:>10}  {folder}", file=sys.stderr)
