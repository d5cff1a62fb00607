"""The tracker of one stage: the terminal, the curves file and the recorders behind one interface."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from alignlab.artifact import REPORT, SAMPLES, Artifact
from alignlab.durable import is_full
from alignlab.sanitize import printable, redact_text
from alignlab.stage import Tracker
from alignlab.tracking.curves import Curves
from alignlab.tracking.process import is_first_process
from alignlab.tracking.recorder import Made, StageRecord
from alignlab.tracking.terminal import PlainLines, StageLine, say

ROWS = 128
"""Rows of a table that are recorded; W&B may take half a second for 256."""


class StageTracker(Tracker):
    """Passes every report on to its listeners.

    A listener that fails (a service that went away) is dropped and named once; the stage continues. On a full disk it
    ends: the curves are part of the artifact, and without space nothing of it could be published.
    A spawned process gets a copy that prints plain lines and writes the curves; recorders get those when the stage
    ends.

    Args:
        line: in the terminal.
        curves: the curves file.
        records: of the stage, by the recorders' names.
        folder: the artifact being written.
        tell: names a listener that failed.
    """

    def __init__(
        self,
        line: StageLine | None,
        curves: Curves | None,
        records: Mapping[str, StageRecord],
        folder: Path,
        tell: Callable[[str], None] = say,
    ) -> None:
        self._line, self._curves, self._records = line, curves, dict(records)
        self._folder, self._tell = folder, tell
        self._steps = Steps(self._send)
        self._has_table = False
        self._heard = False

    def __reduce__(self) -> tuple[Callable[..., "StageTracker"], tuple[str | None, Curves | None, Path]]:
        return _spawned, (self._line.name if self._line else None, self._curves, self._folder)

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if line := self._line:
            self._try("the progress line", lambda: line.progress(done, total, metrics))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Tracker`. A resumed stage has recorders begin with what it logged before."""
        if self._records and not self._heard:
            self._send_lines(before=step + 1)
        self._heard = True
        if curves := self._curves:
            self._try("curves.jsonl", lambda: curves.log(step, metrics))
        self._steps.log(step, metrics)

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """See `Tracker`."""
        self._has_table = True
        plain = [{column: _cell(value) for column, value in row.items()} for row in rows[:ROWS]]
        self._record(lambda record: record.table(name, plain))

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
        self._steps.end()
        self._record(lambda record: record.summary(metrics))

    def made(self) -> dict[str, Made]:
        """Where each recorder recorded the stage, for the artifact's manifest."""
        found: dict[str, Made] = {}
        for name, record in list(self._records.items()):
            self._try(name, lambda name=name, record=record: found.update({name: dict(record.made())}))  # type: ignore[misc]
        return {name: made for name, made in found.items() if made}

    def close(self, error: BaseException | None) -> None:
        """End everything. A samples file that no stage showed as a table is sent as one."""
        if curves := self._curves:
            self._try("curves.jsonl", curves.close, has_failed=error is not None)
        self._end_records(error)
        if line := self._line:
            self._try("the progress line", lambda: line.close(error))
        self._line = self._curves = None
        self._records = {}

    def _end_records(self, error: BaseException | None) -> None:
        if not self._records:
            return
        if not self._heard:  # by a spawned process, if at all
            self._send_lines()
        self._steps.end()
        if error is None and not self._has_table and (rows := _first_rows(self._folder)):
            self.table("samples", rows)
        if error is None and (page := self._folder / REPORT).is_file():
            self._record(lambda record: record.page("report", page))
        self._record(lambda record: record.ends(error))

    def _send_lines(self, before: float = math.inf) -> None:
        """Send the lines of the curves file up to a step to the recorders."""
        if curves := self._curves:
            lines: list[tuple[int, dict[str, float]]] = []
            self._try("curves.jsonl", lambda: lines.extend(curves.lines()))
            for step, metrics in lines:
                if step < before:
                    self._steps.log(step, metrics)

    def _send(self, step: int, metrics: Mapping[str, float]) -> None:
        self._record(lambda record: record.log(step, metrics))

    # ---- what fails ------------------------------------------------------------------------------------------------
    def _record(self, action: Callable[[StageRecord], None]) -> None:
        for name, record in list(self._records.items()):
            self._try(name, lambda record=record: action(record))  # type: ignore[misc]

    def _try(self, what: str, action: Callable[[], None], has_failed: bool = False) -> None:
        try:
            action()
        except Exception as error:  # an error of a listener must not stop training
            self._drop(what, error)
            if what == "curves.jsonl" and is_full(error) and not has_failed:
                raise
            reason = redact_text(f"{type(error).__name__}: {error}")
            self._tell(f"{what} failed and is left out from here on, the stage continues: {reason}")

    def _drop(self, what: str, error: Exception) -> None:
        if what == "curves.jsonl":
            self._curves = None
        elif what == "the progress line":
            self._line = None
        elif record := self._records.pop(what, None):
            with contextlib.suppress(Exception):  # it has failed already, and the record must say so
                record.ends(error)


class Steps:
    """Joins what is logged for one step: recorders receive each step once, in order, as finite numbers.

    Args:
        send: receives a step that is complete.
    """

    def __init__(self, send: Callable[[int, Mapping[str, float]], None]) -> None:
        self._send = send
        self._step = 0
        self._line: dict[str, float] = {}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add to the numbers of a step."""
        if step != self._step:
            self.end()
        self._step = step
        self._line.update({name: float(value) for name, value in metrics.items() if math.isfinite(value)})

    def end(self) -> None:
        """Send the last step."""
        line, self._line = self._line, {}
        if line:
            self._send(self._step, line)


def _spawned(name: str | None, curves: Curves | None, folder: Path) -> StageTracker:
    return StageTracker(PlainLines(name, Console()) if name else None, curves, {}, folder)


def _first_rows(folder: Path) -> list[Mapping[str, object]]:
    if not (folder / SAMPLES).is_file():
        return []
    lines: Iterable[Mapping[str, object]] = Artifact(folder, "other", "").lines(SAMPLES)
    return [row for row, _ in zip(lines, range(ROWS), strict=False)]


def _cell(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return printable(redact_text(str(value)))
