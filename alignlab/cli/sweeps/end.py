"""The end of a sweep: the table of its jobs, `sweep.csv` and `sweep.html` in its folder."""

import csv
import datetime
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignlab.cli.output import write_out
from alignlab.cli.sweeps.sweep import Sweep
from alignlab.cli.units import brief, heading
from alignlab.errors import AlignlabError, DataError
from alignlab.pipeline.run_folder import FINE

if TYPE_CHECKING:
    from rich.table import Table

    from alignlab.report.trial import Trial

CSV: Final = "sweep.csv"
PAGE: Final = "sweep.html"
STYLES: Final = {"completed": "green", "pruned": "cyan", "failed": "red", "dead": "red", "preempted": "yellow"}
VALUE: Final = 24
"""Characters of a value in the table, at most."""
MOST: Final = 4
"""Metrics in the table, at most."""
NOT_SHOWN: Final = ("store_dir", "hydra", "tracking", "rerun", "sweep")
"""Keys, and beginnings of keys, that say where and how a job ran."""


def finish(sweep: Sweep, resumes: bool = False) -> int:
    """Print how each job ended and what to do next, and write the sweep's files; 1 if a job is not complete.

    Args:
        sweep: that has ended.
        resumes: whether `sweep.resume=true` can run what is not complete.
    """
    from rich.console import Console

    jobs = sweep.jobs()
    if not jobs:
        return 0
    ended = Ended.read(jobs)
    console = Console(stderr=True, soft_wrap=False)
    console.print(ended.table(console.width))
    lines = ended.errors()
    lines += _written(sweep.folder, ended)
    if len(ended.trials) > 1:
        lines.append(f"settings side by side, averaged over seeds: alignlab compare {shlex.quote(str(sweep.folder))}")
    left = sum(job["status"] not in FINE for job in ended.jobs)
    if left and resumes:
        lines.append(f"not complete: {left} of {len(jobs)} jobs; the same command with sweep.resume=true runs them")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return int(left > 0)


def _written(folder: Path, ended: "Ended") -> list[str]:
    """Write the files; lines that name them, or say why one is missing."""
    from alignlab.report.sweep import render

    found = []
    try:
        write_out(folder / CSV, ended.csv())
        found.append(f"all numbers: {folder / CSV}")
        if ended.trials:
            write_out(folder / PAGE, render(list(ended.trials.values()), datetime.datetime.now(datetime.UTC)))
            found.append(f"as a page: {folder / PAGE}")
    except (AlignlabError, OSError) as error:
        found.append(f"not written: {error}")
    return found


@dataclass(frozen=True)
class Ended:
    """The jobs of a sweep that has ended.

    Args:
        jobs: their records, each with its status.
        trials: the completed ones as the report reads them, by number.
    """

    jobs: Sequence[Mapping[str, Any]]
    trials: Mapping[int, "Trial"]

    @classmethod
    def read(cls, jobs: Sequence[Mapping[str, Any]]) -> "Ended":
        """Read the folders of the jobs; one whose files are damaged counts as failed."""
        from alignlab.report.trial import Trial

        trials, found = dict[int, Trial](), list[Mapping[str, Any]]()
        for job in jobs:
            folder = Path(job["folder"])
            try:
                if job["status"] == "completed":
                    trials[job["job"]] = Trial.read(folder, folder.name, "completed")
                found.append(job)
            except DataError as error:
                found.append({**job, "status": "failed", "error": str(error)})
        return cls(found, trials)

    @cached_property
    def changed(self) -> list[str]:
        """The keys in which the jobs differ, as typed."""
        keys = dict.fromkeys(key for values in self.values.values() for key in values if not _is_of_the_machine(key))
        return [key for key in keys if len({values.get(key) for values in self.values.values()}) > 1]

    @cached_property
    def values(self) -> dict[int, dict[str, str]]:
        """Values by key, of each job."""
        from alignlab.report.trial import parsed

        return {job["job"]: parsed(job["overrides"]) for job in self.jobs}

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of the table: the one that the sweep was asked for, then headlines that differ."""
        from alignlab.report.design import Design
        from alignlab.report.panels import Panels

        trials = list(self.trials.values())
        if not trials:
            return []
        asked = [value for values in self.values.values() if (value := values.get("sweep.metric"))][:1]
        try:
            design = Design.of(trials)
            stages = [(p.stages[-1], p.metric) for p in Panels.of(trials, design).shown]
            if not design.axis:  # seeds alone: how good the models are, before how good the labels are
                stages.sort(key=lambda named: trials[0].kinds.get(named[0]) != "policy")
            shown = list(map("/".join, stages))
        except DataError:  # nothing in common
            shown = []
        return [m for m in dict.fromkeys([*asked, *shown]) if any(m in t.metrics for t in trials)]

    def errors(self) -> list[str]:
        """One line for each job that has an error."""
        from alignlab.sanitize import printable

        found = [(f"job {j['job']}", " ".join(str(j["error"]).split()), j["folder"]) for j in self.jobs if "error" in j]
        return [printable(f"{job}: {error}" + (f" ({folder})" if folder else "")) for job, error, folder in found]

    def csv(self) -> str:
        """A row for each job: number, status, folder, what differs, every metric, the error."""
        names = list(dict.fromkeys(name for trial in self.trials.values() for name in trial.metrics))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(_as_text, ["job", "status", *self.changed, *names, "error", "folder"]))
        for job in self.jobs:
            number = job["job"]
            trial = self.trials.get(number)
            values = [self.values[number].get(key, "") for key in self.changed]
            numbers = [_plain(trial.metrics.get(name)) if trial else "" for name in names]
            texts = map(_as_text, (*values, *numbers, job.get("error", ""), job["folder"]))
            writer.writerow([number, job["status"], *texts])
        return text.getvalue()

    def table(self, width: int) -> "Table":
        """The jobs, with as many metrics as there is room for."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        columns = [("job", [str(job["job"]) for job in self.jobs])]
        columns += [("status", [str(job["status"]) for job in self.jobs])]
        columns += [(self._title(key), self._column(key)) for key in self.changed]
        room = width - sum(_width(column) for column in columns)
        for name in self.metrics[:MOST]:
            column = (heading(name), self._numbers(name))
            if (room := room - _width(column)) < 0:
                break
            columns.append(column)
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for place, (title, _) in enumerate(columns):
            table.add_column(Text(title), justify="left" if place < 2 + len(self.changed) else "right")
        for row, job in zip(zip(*(cells for _, cells in columns), strict=True), self.jobs, strict=True):
            style = STYLES.get(str(job["status"]), "dim")
            table.add_row(*(Text(cell, style=style if place == 1 else "") for place, cell in enumerate(row)))
        return table

    def _title(self, key: str) -> str:
        """The last part of a key, and as much before it as tells it from the others."""
        parts = key.split(".")
        for count in range(1, len(parts)):
            title = ".".join(parts[-count:])
            if sum(f".{other}".endswith(f".{title}") for other in self.changed) == 1:
                return title
        return key

    def _column(self, key: str) -> list[str]:
        from alignlab.sanitize import printable

        texts = [brief(printable(self.values[job["job"]].get(key, ""))) for job in self.jobs]
        return [text if len(text) <= VALUE else f"{text[: VALUE - 1]}…" for text in texts]

    def _numbers(self, name: str) -> list[str]:
        found = [self.trials[j["job"]].metrics.get(name) if j["job"] in self.trials else None for j in self.jobs]
        return ["" if value is None else f"{value:.4g}" for value in found]


def _width(column: tuple[str, Sequence[str]]) -> int:
    title, cells = column
    return max(map(len, [*title.split("\n"), *cells])) + 2


def _as_text(cell: object) -> str:
    """A cell that no spreadsheet takes for a formula: a text that would begin one begins with an apostrophe."""
    text = str(cell)
    return text if not text.startswith(tuple("=+-@\t\r")) or _is_number(text) else f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _is_of_the_machine(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in NOT_SHOWN)
