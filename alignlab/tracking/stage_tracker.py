"""The tracker of one stage: the terminal, the curves file and W&B behind one interface."""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from alignlab.artifact import REPORT, SAMPLES, Artifact
from alignlab.durable import is_full
from alignlab.stage import Tracker
from alignlab.tracking.curves import Curves
from alignlab.tracking.terminal import PlainLines, StageLine, say
from alignlab.tracking.wandb_run import ROWS, WandbRun


class StageTracker(Tracker):
    """Passes every report on to its listeners.

    A listener that fails (a service that went away) is dropped and named once; the stage continues. On a full disk it
    ends: the curves are part of the artifact, and without space nothing of it could be published.
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
        if is_first_process():
            self._try("the progress line", lambda: self._line.say(text) if self._line else say(text))

    def flush(self) -> None:
        """See `Tracker`."""
        if curves := self._curves:
            self._try("curves.jsonl", curves.flush)

    def summary(self, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if run := self._wandb:
            self._try("W&B", lambda: run.summary(metrics))

    def close(self, error: BaseException | None) -> None:
        """End everything. A samples file that no stage showed as a table is sent as one."""
        if curves := self._curves:
            self._try("curves.jsonl", curves.close, has_failed=error is not None)
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

    def _try(self, what: str, action: Callable[[], None], has_failed: bool = False) -> None:
        try:
            action()
        except Exception as error:  # an error of a listener must not stop training
            self._drop(what, error)
            if what == "curves.jsonl" and is_full(error) and not has_failed:
                raise
            say(f"{what} failed and is left out from here on, the stage continues: {type(error).__name__}: {error}")

    def _drop(self, what: str, error: Exception) -> None:
        if what == "W&B":
            run, self._wandb = self._wandb, None
            if run is not None:
                with contextlib.suppress(Exception):  # it has failed already, and the run must report that
                    run.close(error)
        elif what == "curves.jsonl":
            self._curves = None
        else:
            self._line = None


def is_first_process() -> bool:
    """Whether this is the process that reports; processes may have been launched (torchrun) or spawned."""
    if int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) > 0:
        return False
    if "torch" not in sys.modules:
        return True
    from alignlab import distributed

    return distributed.rank() == 0


def _spawned(name: str | None, curves: Curves | None, folder: Path) -> StageTracker:
    return StageTracker(PlainLines(name, Console()) if name else None, curves, None, folder)


def _first_rows(folder: Path) -> list[Mapping[str, object]]:
    if not (folder / SAMPLES).is_file():
        return []
    lines = Artifact(folder, "other", "").lines(SAMPLES)
    return [row for row, _ in zip(lines, range(ROWS), strict=False)]
