"""`alignlab runs [FOLDER] [--metrics STAGE/METRIC,...] [--status WORD,...] [--last N] [--json]`: runs and sweeps.

The newest is last, next to the prompt. Runs of one sweep stand together.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignlab.cli.arguments import Parser
from alignlab.cli.folders import RUNS, below
from alignlab.cli.units import duration, when
from alignlab.errors import ConfigError, suggestion
from alignlab.pipeline.run_record import DEAD, RunRecord
from alignlab.sanitize import printable

EXAMPLES: Final = """\
examples
  alignlab runs                                   all runs and sweeps below runs/
  alignlab runs runs/2026-11-26 --status failed,dead
  alignlab runs --last 5 --metrics dpo/validation_loss,dpo/true_taste
  alignlab runs --json | jq '.[-1].runs[].metrics'

status: completed, failed, preempted (asked to stop), running, or dead: "running" by its own record, and the process
is gone. The same command again continues a run that is not completed.
"""
SHOWN: Final = 2
"""Metrics that are shown where none are named."""
PREFERRED: Final = ("validation_loss", "accuracy", "validation_reward", "loss")
STATES: Final = ("completed", "failed", "preempted", "running", DEAD, "missing", "unreadable")
COLOURS: Final = {"completed": "green", "running": "cyan"}


@dataclass(frozen=True)
class Group:
    """A run of its own, or the runs of a sweep.

    Args:
        runs: at least one.
        root: folder that was listed.
    """

    runs: Sequence[RunRecord]
    root: Path

    @property
    def is_sweep(self) -> bool:
        """Whether it is a sweep."""
        return bool(self.runs[0].sweep)

    @property
    def folder(self) -> Path:
        """Of the run, or the one that all runs of the sweep are in."""
        parents = [set(run.folder.parents) for run in self.runs]
        common = set.intersection(*parents)
        return max(common, key=lambda p: len(p.parts)) if self.is_sweep else self.runs[0].folder

    @property
    def name(self) -> str:
        """The folder as seen from the one that was listed."""
        return str(self.folder.relative_to(self.root))

    @property
    def began(self) -> float:
        """When the first of them began; 0 where it is not known."""
        return min((run.started.timestamp() for run in self.runs if run.started), default=0.0)

    @property
    def seconds(self) -> float | None:
        """From the first beginning to the last sign of life."""
        ends = [run.started.timestamp() + run.seconds for run in self.runs if run.started and run.seconds is not None]
        return max(ends) - self.began if ends else None

    @property
    def states(self) -> Counter[str]:
        """How many of its runs stand how."""
        return Counter(run.status for run in self.runs)


def run(arguments: list[str]) -> int:
    """Print the table, or JSON; exit code."""
    asked = _parser().parse_args(arguments)
    root = Path(asked.folder)
    if not root.is_dir():
        known = ", so nothing has run here yet" if root == RUNS else ""
        raise ConfigError(f"no such folder: {root}{known}; name the folder that your runs are in: alignlab runs FOLDER")
    records = [RunRecord.read(folder) for folder in below(root.resolve())]
    groups = _groups(_chosen(records, asked.status), root.resolve())[-asked.last if asked.last else None :]
    metrics = _named(asked.metrics, groups) if asked.metrics else None
    if asked.json:
        print(json.dumps([_plain(group, metrics) for group in groups], indent=2))
    else:
        _print(groups, metrics, root)
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
def _chosen(records: Sequence[RunRecord], words: str | None) -> list[RunRecord]:
    wanted = _words(words or "")
    for word in wanted:
        if word not in STATES:
            raise ConfigError(
                f"--status {word}: no such status; there are {', '.join(STATES)}{suggestion(word, STATES)}"
            )
    return [record for record in records if not wanted or record.status in wanted]


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


def usual_metrics(runs: Sequence[RunRecord]) -> list[str]:
    """What most runs measured of their last model: its validation loss first."""
    counted: Counter[str] = Counter()
    for run in runs:
        policies = [name for name, stage in run.stages.items() if stage.get("kind") in ("policy", "reward_model")]
        of_last = [m for m in run.metrics if policies and m.partition("/")[0] == policies[-1]]
        ranked = sorted(of_last, key=lambda m: _rank(m.partition("/")[2]))
        counted.update(dict.fromkeys(ranked[:SHOWN], 1))
    return [name for name, _ in counted.most_common(SHOWN)]


def _rank(metric: str) -> tuple[int, str]:
    order = list(PREFERRED)
    known = order.index(metric) if metric in order else len(order)
    dull = metric in ("steps", "best_step", "seconds") or metric.endswith(("_low", "_high"))
    return (known + 100 * dull, metric)


# ---- what they differ in ---------------------------------------------------------------------------------------------
def changed(run: RunRecord) -> list[str]:
    """What was typed, without the name of the experiment, which is shown anyway."""
    return [text for text in run.overrides if text != f"experiment={run.name}" and not text.startswith("hydra.")]


def swept(runs: Sequence[RunRecord]) -> tuple[list[str], list[str]]:
    """What all runs of a sweep have in common, and the keys in which they differ."""
    typed = [changed(run) for run in runs]
    common = [text for text in typed[0] if all(text in other for other in typed)]
    keys = dict.fromkeys(text.partition("=")[0] for texts in typed for text in texts if text not in common)
    return common, list(keys)


def short(keys: Sequence[str]) -> dict[str, str]:
    """Each key by as few of its last parts as tell it from the others."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [other for other in keys if other != key]
        found[key] = next((e for e in ends if not any(f".{o}".endswith(f".{e}") for o in others)), key)
    return found


def _value(run: RunRecord, key: str) -> str:
    return next((text.partition("=")[2] for text in run.overrides if text.partition("=")[0] == key), "")


# ---- printing --------------------------------------------------------------------------------------------------------
def _plain(group: Group, metrics: Sequence[str] | None) -> dict[str, Any]:
    return {
        "kind": "sweep" if group.is_sweep else "run",
        "folder": str(group.folder),
        "experiment": group.runs[-1].name,
        "status": dict(group.states),
        "started": group.runs[0].started.isoformat() if group.runs[0].started else None,
        "seconds": group.seconds,
        "runs": [_plain_run(run, metrics) for run in group.runs],
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


def _print(groups: Sequence[Group], metrics: Sequence[str] | None, root: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for group in groups:
        names = usual_metrics(group.runs) if metrics is None else metrics
        for line in _title(group, root, console.width):
            console.print(line, soft_wrap=True)
        if group.is_sweep:
            _print_sweep(group, names, console)
            continue
        for line in _lines(group.runs[0], names):
            console.print(Text(f"    {printable(line, limit=max(20, console.width - 5))}", style="dim"), soft_wrap=True)
    if not groups:
        console.print(Text(f"no runs below {root}"))


def _title(group: Group, root: Path, width: int) -> list[Any]:
    """Folder, experiment, status, time: one line, or two where one is too narrow."""
    from rich.text import Text

    states = group.states
    told = ", ".join(f"{count} {word}" for word, count in states.most_common())
    text = f"sweep of {len(group.runs)}: {told}" if group.is_sweep else group.runs[0].status
    state = Text(text, style=_colour(states))
    folder, name = Text(str(root / group.name), style="bold"), Text(f"  {printable(_what(group.runs[-1]))}  ")
    about = Text(f"  {when(group.runs[0].started)}  {duration(group.seconds)}".rstrip())
    whole = Text.assemble(folder, name, state, about)
    if whole.cell_len <= width:
        return [whole]
    return [Text.assemble(folder, "  ", state), Text(f"    {name.plain.strip()}{about.plain}")]


def _what(run: RunRecord) -> str:
    return f"{run.name} (prepare)" if run.about.get("prepares") else run.name


def _colour(states: Mapping[str, int]) -> str:
    bad = [word for word in states if word not in COLOURS]
    return "red" if bad else next(iter(COLOURS[word] for word in ("running", "completed") if word in states), "")


def _lines(run: RunRecord, metrics: Sequence[str]) -> Iterator[str]:
    """What was changed, what came out, and why it failed."""
    if typed := changed(run):
        yield " ".join(typed)
    if found := [f"{name}={run.metrics[name]:.4g}" for name in metrics if name in run.metrics]:
        yield "  ".join(found)
    if run.error and run.status != "completed":
        yield run.error.splitlines()[0]


def _print_sweep(group: Group, metrics: Sequence[str], console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    common, keys = swept(group.runs)
    if common:
        console.print(Text(f"    all: {' '.join(common)}", style="dim"), soft_wrap=True)
    heads = ["job", "status", "took", *short(keys).values(), *short([m.replace("/", ".") for m in metrics]).values()]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("   ", no_wrap=True)
    for head in heads:
        table.add_column(Text(head), overflow="fold", no_wrap=head in ("job", "status", "took"))
    for run in group.runs:
        numbers = [f"{run.metrics[m]:.4g}" if m in run.metrics else "" for m in metrics]
        cells = [str(run.job), run.status, duration(run.seconds), *(_value(run, key) for key in keys), *numbers]
        table.add_row("", *(Text(printable(c), style=_colour({c: 1}) if i == 1 else "") for i, c in enumerate(cells)))
    console.print(table)
    for run in group.runs:
        if run.error and run.status != "completed":
            line = f"job {run.job}: {run.error.splitlines()[0]}"
            console.print(Text(f"    {printable(line, limit=max(20, console.width - 5))}", style="red"), soft_wrap=True)
