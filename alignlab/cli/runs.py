"""`alignlab runs [FOLDER] [--metrics STAGE/METRIC,...] [--status WORD,...] [--last N] [--json]`: runs and sweeps.

The newest is last, next to the prompt. Runs of one sweep stand together.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from alignlab.cli.arguments import Parser
from alignlab.cli.folders import RUNS, below
from alignlab.cli.runs_table import Group, print_groups
from alignlab.errors import ConfigError, suggestion
from alignlab.pipeline.run_record import DEAD, RunRecord

EXAMPLES: Final = """\
examples
  alignlab runs                                   all runs and sweeps below runs/
  alignlab runs runs/2026-11-26 --status failed,dead
  alignlab runs --last 5 --metrics dpo/validation_loss,dpo/true_taste
  alignlab runs --json | jq '.[-1].runs[].metrics'

status: completed, failed, preempted (asked to stop), running, or dead: "running" by its own record, and the process
is gone. The same command again continues a run that is not completed.
"""
STATES: Final = ("completed", "pruned", "failed", "preempted", "running", DEAD, "missing", "unreadable")


def run(arguments: list[str]) -> int:
    """Print the table, or JSON; exit code."""
    asked = _parser().parse_args(arguments)
    root = Path(asked.folder)
    if not root.is_dir():
        known = ", so nothing has run here yet" if root == RUNS else ""
        raise ConfigError(f"no such folder: {root}{known}; name the folder that your runs are in: alignlab runs FOLDER")
    records = [RunRecord.read(folder) for folder in below(root.resolve())]
    groups = _chosen(_groups(records, root.resolve()), asked.status)[-asked.last if asked.last else None :]
    metrics = _named(asked.metrics, groups) if asked.metrics else None
    if asked.json:
        print(json.dumps([_plain(group, metrics) for group in groups], indent=2))
    else:
        print_groups(groups, metrics, root)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "alignlab runs",
        description="Runs and sweeps below a folder, the newest last.",
        examples=EXAMPLES,
    )
    parser.add_argument("folder", nargs="?", default=str(RUNS), metavar="FOLDER", help="where the runs are; runs")
    parser.add_argument(
        "--metrics", metavar="NAMES", help="STAGE/METRIC,...; by default the last model's loss and more"
    )
    parser.add_argument("--status", metavar="WORDS", help="only these: failed,dead")
    parser.add_argument("--last", type=int, metavar="N", help="only the newest N runs and sweeps")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


# ---- which runs ------------------------------------------------------------------------------------------------------
def _chosen(groups: Sequence[Group], words: str | None) -> list[Group]:
    """The groups that have runs of the wanted status, and list no others."""
    wanted = _words(words or "")
    for word in wanted:
        if word not in STATES:
            raise ConfigError(
                f"--status {word}: no such status; there are {', '.join(STATES)}{suggestion(word, STATES)}"
            )
    if not wanted:
        return list(groups)
    found = [replace(group, chosen=[run for run in group.runs if run.status in wanted]) for group in groups]
    return [group for group in found if group.listed]


def _groups(records: Sequence[RunRecord], root: Path) -> list[Group]:
    """Runs of their own and sweeps, in the order in which they began; the jobs of a sweep by their numbers."""
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        found.setdefault(record.sweep or str(record.folder), []).append(record)
    groups = [Group(sorted(runs, key=lambda r: (r.job is None, r.job or 0)), root) for runs in found.values()]
    return sorted(groups, key=lambda group: (group.began, group.name))


def _named(text: str, groups: Sequence[Group]) -> list[str]:
    """The metrics that were asked for.

    Raises:
        ConfigError: no run has one of them.
    """
    known = sorted({name for group in groups for run in group.runs for name in run.metrics})
    for name in _words(text):
        if known and name not in known:
            stage = [k for k in known if k.partition("/")[0] == name.partition("/")[0]] or known
            some = ", ".join(stage[:8]) + (", ..." if len(stage) > 8 else "")
            raise ConfigError(f"--metrics {name}: no run has it; there are {some}{suggestion(name, known)}")
    return _words(text)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _plain(group: Group, metrics: Sequence[str] | None) -> dict[str, Any]:
    return {
        "kind": "sweep" if group.is_sweep else "run",
        "folder": str(group.folder),
        "experiment": group.runs[-1].name,
        "status": dict(group.states),
        "started": group.runs[0].started.isoformat() if group.runs[0].started else None,
        "seconds": group.seconds,
        "runs": [_plain_run(run, metrics) for run in group.listed],
    }


def _plain_run(run: RunRecord, metrics: Sequence[str] | None) -> dict[str, Any]:
    names = run.metrics if metrics is None else metrics
    return {
        "folder": str(run.folder),
        "status": run.status,
        "job": run.job,
        "started": run.started.isoformat() if run.started else None,
        "seconds": run.seconds,
        "overrides": run.overrides,
        "metrics": {name: run.metrics[name] for name in names if name in run.metrics},
        **({"error": run.error} if run.error else {}),
    }
