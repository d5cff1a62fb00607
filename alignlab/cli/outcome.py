"""The end of a run: its printed summary, and the metric that the sweeper receives."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alignlab.artifact import REPORT
from alignlab.errors import ConfigError, suggestion
from alignlab.pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from alignlab.pipeline.runner import Runner

MOST: Final = 8
"""Metrics that a message names, at most."""


def metric_for_sweeper(name: str | None, metrics: dict[str, float]) -> float | None:
    """The metric that a sweeper asked for, if it asked for one.

    Raises:
        ConfigError: the run has none of that name.
    """
    if name is None:
        return None
    if name not in metrics:
        known = sorted(m for m in metrics if not m.endswith(("_low", "_high")))
        near = [m for m in known if m.partition("/")[0] == name.partition("/")[0]] or known
        some = f"; metrics.json has {', '.join(near[:MOST])}{', ...' * (len(near) > MOST)}"
        raise ConfigError(f"sweep.metric={name}: the run has no such metric{suggestion(name, known) or some}")
    return metrics[name]


def show(folder: RunFolder, runner: "Runner") -> None:
    """Print the table of stages with their headline metrics, the files, and the next command."""
    from rich.console import Console

    from alignlab.report.run import RunView
    from alignlab.report.table import final_table

    table = final_table(RunView.of(runner.artifacts))
    if table is not None:
        Console().print(table)
    lines = [f"run folder: {folder.path}"]
    if report := _report(folder):
        lines.append(f"report: {report}")
    if policies := [name for name, made in runner.artifacts.items() if made.kind == "policy"]:
        lines.append(f"talk to a model: alignlab chat {shlex.quote(str(folder.path))} {policies[-1]}")
    _print(*lines)


def show_job(folder: RunFolder) -> None:
    """Print where a job of a sweep left its results: the sweep ends with a table of all jobs."""
    report = _report(folder)
    _print(f"report: {report}" if report else f"run folder: {folder.path}")


def _report(folder: RunFolder) -> Path | None:
    report = folder.path / REPORT
    return report if report.is_file() else None


def _print(*lines: str) -> None:
    from rich.console import Console

    for line in lines:
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
