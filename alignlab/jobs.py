"""One job of the command: what Hydra calls with a composed configuration, alone or as part of a sweep.

A job of a sweep that fails does not end the others; the sweep's exit code says so in the end. Whether a job is done
stands in its `status.json`; where that is missing, it is not.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from alignlab import chosen, stopping
from alignlab.errors import AlignlabError, Preempted
from alignlab.run_folder import RunFolder, read_status
from alignlab.text import printable
from alignlab.trackers.redact import redact, redact_override

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
    sources = hydra.runtime.config_sources
    folders = [Path(s.path) for s in sources if s.provider == "command-line" and s.schema == "file"]
    code = run(cfg, stage, [str(o) for o in hydra.overrides.task], Path(hydra.runtime.output_dir), folders)
    if code > 1 and os.getpid() != _process.get("id"):
        raise Preempted("asked to stop", code)  # a launcher's worker: its parent must hear of it
    if code and (code > 1 or hydra.mode != RunMode.MULTIRUN):
        raise SystemExit(code)


def run(cfg: Tree, stage: str | None, overrides: Sequence[str], path: Path, folders: Sequence[Path] = ()) -> int:
    """Run an experiment into a folder; the exit code. Whatever happens stands in `status.json`.

    Args:
        cfg: as Hydra composed it.
        stage: the chosen option of `stage`.
        overrides: of this job, rewritten.
        path: the run's folder.
        folders: of options, that the command was given.
    """
    folder = RunFolder(path)
    try:
        with stopping.heard():
            folder.status("running")
            _run(chosen.settled(cfg, overrides, folders), stage, overrides, folder)
    except Preempted as error:
        return _end(folder, "preempted", error, error.code)
    except (AlignlabError, HydraException, OmegaConfBaseException) as error:
        return _end(folder, "failed", error, 1)
    except OSError as error:  # a full disk, a folder that may not be written to: no bug of ours
        return _end(folder, "failed", f"{error}; finished stages are kept", 1)
    except Exception as error:
        traceback.print_exc()
        return _end(folder, "failed", f"{type(error).__name__}: {error}", 1)
    folder.status("completed")
    return 0


def _run(cfg: Tree, stage: str | None, overrides: Sequence[str], folder: RunFolder) -> None:
    from alignlab import config, provenance
    from alignlab.instantiate import Builder
    from alignlab.lifecycle import Lifecycle
    from alignlab.pipeline import plan
    from alignlab.store import Store

    experiment = config.check(cfg, stage)
    whole = experiment.config
    seed = whole["seed"]
    folder.about = {
        "name": experiment.name,
        "seed": seed,
        "overrides": [redact_override(o.removeprefix("++")) for o in overrides],
        **provenance.of_now(),
    }
    folder.config(redact(whole))
    build = Builder().build
    runtime, tracking = build(whole["trainer"], "trainer"), build(whole["tracking"], "tracking")
    steps = plan(experiment.pipeline, runtime)
    store = Store(Path(whole["store_dir"]))
    if not all(store.has(step.fingerprint) for step in steps):
        tracking.prepare()
    run_id = _run_id(experiment.name, folder.path)
    Lifecycle(steps, store, folder, runtime, tracking, experiment.name, run_id).run()
    _show(folder)


def _run_id(name: str, path: Path) -> str:
    return f"{name}/{'-'.join(path.parts[-2:])}"


def _show(folder: RunFolder) -> None:
    """The table of stages and their headline metrics, and where everything is."""
    from rich.console import Console

    from alignlab.report.table import final_table

    console = Console()
    console.print(final_table(folder.metrics))
    console.print(f"run folder: {folder.path}", markup=False, highlight=False, soft_wrap=True)


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
