"""Print runs and sweeps as tables: how they stand, what was changed, what came out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignlab.cli.units import brief, duration, heading, when
from alignlab.pipeline.run_record import RunRecord
from alignlab.sanitize import printable

SHOWN: Final = 2
"""Metrics that are shown where none are named."""
MOST: Final = 1000
"""Characters of an error where failed runs were asked for; a list of all runs has one line for each."""
PREFERRED: Final = ("validation_loss", "accuracy", "validation_reward", "loss")
COLOURS: Final = {"completed": "green", "pruned": "cyan", "running": "cyan"}


@dataclass(frozen=True)
class Group:
    """A run of its own, or the runs of a sweep.

    Args:
        runs: at least one.
        root: folder that was listed.
        chosen: those that are listed; None lists all.
    """

    runs: Sequence[RunRecord]
    root: Path
    chosen: Sequence[RunRecord] | None = None

    @property
    def listed(self) -> Sequence[RunRecord]:
        """The runs to list: of a sweep maybe the failed ones alone."""
        return self.runs if self.chosen is None else self.chosen

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


def usual_metrics(runs: Sequence[RunRecord]) -> list[str]:
    """The metric of the sweep; else those that most runs have of their last model, its validation loss first."""
    asked = {run.value("sweep.metric") for run in runs} & {name for run in runs for name in run.metrics}
    counted: Counter[str] = Counter(dict.fromkeys(sorted(asked), len(runs) + 1))
    for run in runs:
        model = _last_model(run, runs)
        of_last = [m for m in run.metrics if model and m.partition("/")[0] == model]
        counted.update(dict.fromkeys(sorted(of_last, key=lambda m: _rank(m.partition("/")[2]))[:SHOWN], 1))
    return [name for name, _ in counted.most_common(SHOWN)]


def _last_model(run: RunRecord, runs: Sequence[RunRecord]) -> str:
    """Of the models of a run, the one that is another in most of the runs, as what is swept is; of several the last."""
    models = [name for name, stage in run.stages.items() if stage.get("kind") in ("policy", "reward_model")]
    keys = {name: {other.stages.get(name, {}).get("fingerprint") for other in runs} - {None} for name in models}
    return max(reversed(models), key=lambda name: len(keys[name]), default="")


def _rank(metric: str) -> tuple[int, str]:
    order = list(PREFERRED)
    known = order.index(metric) if metric in order else len(order)
    dull = metric in ("steps", "best_step", "seconds") or metric.endswith(("_low", "_high"))
    return (known + 100 * dull, metric)


def changed(run: RunRecord) -> list[str]:
    """Overrides without the name of the experiment, which is shown anyway."""
    how = ("hydra.", "hydra/", "sweep.")
    typed = [text for text in run.overrides if not text.lstrip("+~").startswith(how)]
    return [text for text in typed if text != f"experiment={run.name}"]


def swept(runs: Sequence[RunRecord]) -> tuple[list[str], list[str]]:
    """Overrides that all runs of a sweep have in common, and the keys in which they differ."""
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


def print_groups(groups: Sequence[Group], metrics: Sequence[str] | None, root: Path) -> None:
    """Print runs of their own in a few lines, sweeps as tables.

    Args:
        groups: in order.
        metrics: to be shown; None shows those that most runs have of their last model.
        root: folder that was listed.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for group in groups:
        names = usual_metrics(group.runs) if metrics is None else metrics
        names = [name for name in names if any(name in run.metrics for run in group.listed)]
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
    state = Text(printable(text), style=_colour(states))
    folder, name = (
        Text(printable(str(root / group.name)), style="bold"),
        Text(f"  {printable(_what(group.runs[-1]))}  "),
    )
    about = Text(f"  {when(group.runs[0].started)}  {duration(group.seconds)}".rstrip())
    whole = Text.assemble(folder, name, state, about)
    if whole.cell_len <= width:
        return [whole]
    return [Text.assemble(folder, "  ", state), Text(f"    {name.plain.strip()}{about.plain}")]


def _what(run: RunRecord) -> str:
    return f"{run.name} (prepare)" if run.about.get("prepares") else run.name


def _colour(states: Mapping[str, int]) -> str:
    bad = [word for word in states if word not in COLOURS]
    return (
        "red" if bad else next(iter(COLOURS[word] for word in ("running", "completed", "pruned") if word in states), "")
    )


def _lines(run: RunRecord, metrics: Sequence[str]) -> Iterator[str]:
    """Overrides, metrics, and the error of a run that failed."""
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
        console.print(Text(printable(f"    all: {' '.join(common)}"), style="dim"), soft_wrap=True)
    heads = ["job", "status", "took", *short(keys).values(), *map(heading, metrics)]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("   ", no_wrap=True)
    for head in heads:
        table.add_column(Text(printable(head)), overflow="fold", no_wrap=head in ("job", "status", "took"))
    for run in group.listed:
        numbers = [f"{run.metrics[m]:.4g}" if m in run.metrics else "" for m in metrics]
        cells = [str(run.job), run.status, duration(run.seconds), *(brief(run.value(key)) for key in keys), *numbers]
        table.add_row("", *(Text(printable(c), style=_colour({c: 1}) if i == 1 else "") for i, c in enumerate(cells)))
    console.print(table)
    room = max(20, console.width - 5) if group.chosen is None else MOST
    for run in group.listed:
        if run.error and run.status != "completed":
            line = f"job {run.job}: {run.error.splitlines()[0]}"
            console.print(Text(f"    {printable(line, limit=room)}", style="red"), soft_wrap=True)
