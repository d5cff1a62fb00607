"""The tracker of one stage: the terminal, the curves file and W&B behind one face."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from alignlab.artifact import SAMPLES, Artifact
from alignlab.run_folder import REPORT
from alignlab.trackers.curves import Curves
from alignlab.trackers.redact import redact_override
from alignlab.trackers.terminal import PlainLines, StageLine, say, stage_line
from alignlab.trackers.weights_and_biases import ROWS, WandbRun
from alignlab.tracking import Origin, Tracker, Tracking

TAG = 64
"""Characters of a tag that W&B takes."""
_OF_THE_MACHINE = re.compile(r"[+~]*(?:hydra[./@=]|store_dir=)")
"""Overrides that say where an experiment ran, not what it is."""


class StageTracker(Tracker):
    """Hands everything on to whoever is listening.

    A listener that fails (a full disk, a service that went away) is dropped and named once; the stage goes on.
    A spawned process gets a copy that prints plain lines and writes the curves; W&B reads those when the stage ends.
    """

    def __init__(self, line: StageLine | None, curves: Curves | None, wandb: WandbRun | None, folder: Path) -> None:
        self._line, self._curves, self._wandb = line, curves, wandb
        self._folder = folder
        self._has_table = False
        self._heard = False

    def __reduce__(self) -> tuple[Callable[..., "StageTracker"], tuple[str | None, Curves | None, Path]]:
        return _spawned, (self._line.name if self._line else None, self._curves, self._folder)

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if line := self._line:
            self._try("the progress line", lambda: line.progress(done, total, metrics))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._heard = True
        if curves := self._curves:
            self._try("curves.jsonl", lambda: curves.log(step, metrics))
        if run := self._wandb:
            self._try("W&B", lambda: run.log(step, metrics))

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """See `Tracker`."""
        self._has_table = True
        if run := self._wandb:
            self._try("W&B", lambda: run.table(name, rows))

    def say(self, text: str) -> None:
        """See `Tracker`."""
        if _is_first_process():
            self._try("the progress line", lambda: self._line.say(text) if self._line else say(text))

    def summary(self, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if run := self._wandb:
            self._try("W&B", lambda: run.summary(metrics))

    def close(self, error: BaseException | None) -> None:
        """End everything. A samples file that no stage showed as a table is sent as one."""
        if curves := self._curves:
            self._try("curves.jsonl", curves.close)
        if run := self._wandb:
            self._try("W&B", lambda: self._end_run(run, error))
        if line := self._line:
            self._try("the progress line", lambda: line.close(error))
        self._line = self._curves = self._wandb = None

    def _end_run(self, run: WandbRun, error: BaseException | None) -> None:
        if self._curves is not None and not self._heard:
            for step, metrics in self._curves.lines():
                run.log(step, metrics)
        if error is None and not self._has_table:
            run.table("samples", _first_rows(self._folder))
        if error is None and (page := self._folder / REPORT).is_file():
            run.page("report", page)
        run.close(error)

    def _try(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a listener raises, training must not hear of it
            self._drop(what, error)
            say(f"{what} failed and is left out from here on, the stage goes on: {type(error).__name__}: {error}")

    def _drop(self, what: str, error: Exception) -> None:
        if what == "W&B":
            run, self._wandb = self._wandb, None
            if run is not None:
                with contextlib.suppress(Exception):  # it has failed already, and that is what the run shall say
                    run.close(error)
        elif what == "curves.jsonl":
            self._curves = None
        else:
            self._line = None


def open_stage(
    tracking: Tracking,
    *,
    name: str,
    origin: Origin,
    folder: Path,
    work: Path | None,
    fingerprint: str,
    config: Mapping[str, Any],
) -> StageTracker:
    """Open the listeners of one stage; the first process's alone, where several were launched."""
    if not _is_first_process():
        return StageTracker(None, None, None, folder)
    overrides = [redact_override(o) for o in origin.overrides]
    keywords = {
        "project": tracking.project,
        "entity": tracking.entity,
        "group": origin.group or origin.experiment,
        "name": name if origin.job is None else f"{origin.job}/{name}",
        "job_type": name,
        "tags": _tags(overrides),
        "fingerprint": fingerprint,
        # An evaluation must know the beta of the model that it measured: so the whole experiment is every run's config.
        "config": {**origin.config, **config, "experiment": origin.experiment, "overrides": overrides},
        "folder": Path(tracking.folder),
    }
    run = _open_run(tracking, keywords)
    return StageTracker(stage_line(name) if tracking.progress else None, Curves(folder, work), run, folder)


def _tags(overrides: Sequence[str]) -> list[str]:
    """What was changed, to filter by. What W&B would refuse is left out; the config has it all."""
    return [o for o in dict.fromkeys(overrides) if len(o) <= TAG and not _OF_THE_MACHINE.match(o)]


def _is_first_process() -> bool:
    """Whether this is the process that reports; processes may have been launched (torchrun) or spawned."""
    if int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) > 0:
        return False
    if "torch" not in sys.modules:
        return True
    from alignlab import distributed

    return distributed.rank() == 0


def _open_run(tracking: Tracking, keywords: Mapping[str, Any]) -> WandbRun | None:
    """A W&B run; offline where online is refused, none where even that fails."""
    for mode in {"online": ("online", "offline"), "offline": ("offline",)}.get(tracking.wandb_mode, ()):
        try:
            return WandbRun(mode=mode, **keywords)
        except Exception as error:  # a wrong key, a service that hangs: nothing of it may stop training
            then = "it goes on offline (is the key right?)" if mode == "online" else "this stage is not tracked there"
            tracking.say(f"W&B could not start ({mode}), {then}: {type(error).__name__}: {error}")
            tracking.fall_back()
    return None


def _spawned(name: str | None, curves: Curves | None, folder: Path) -> StageTracker:
    return StageTracker(PlainLines(name, Console()) if name else None, curves, None, folder)


def _first_rows(folder: Path) -> list[Mapping[str, object]]:
    if not (folder / SAMPLES).is_file():
        return []
    lines = Artifact(folder, "other", "").lines(SAMPLES)
    return [row for row, _ in zip(lines, range(ROWS), strict=False)]
