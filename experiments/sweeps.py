"""Runs of a Hydra sweep as rows, and means with standard errors over seeds: what the findings' collect.py share."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev


@dataclass(frozen=True)
class Run:
    """One complete run.

    Args:
        setting: what it was run with, as the finding names it.
        seed: of the whole run.
        numbers: by metric.
    """

    setting: str
    seed: int
    numbers: Mapping[str, float] = field(default_factory=dict)


def completed(folder: Path) -> Iterable[tuple[dict[str, str], dict[str, float]]]:
    """Overrides (key to value) and metrics of every complete run below a folder."""
    for status in sorted(folder.rglob("status.json")):
        run = status.parent
        if json.loads(status.read_text())["status"] == "completed":
            typed = json.loads((run / "manifest.json").read_text())["overrides"]
            overrides = {key: value for key, _, value in (text.lstrip("+").partition("=") for text in typed)}
            yield overrides, json.loads((run / "metrics.json").read_text())


def write(runs: Sequence[Run], metrics: Sequence[str], path: Path) -> None:
    """A row for each run, by setting and seed."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "seed", *metrics])
        for run in sorted(runs, key=lambda r: (r.setting, r.seed)):
            numbers = [f"{run.numbers[m]:.5g}" if m in run.numbers else "" for m in metrics]
            writer.writerow([run.setting, run.seed, *numbers])


def load(path: Path) -> list[Run]:
    """The runs of a table."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = [k for k in (rows[0] if rows else {}) if k not in {"setting", "seed"}]
    return [Run(r["setting"], int(r["seed"]), {m: float(r[m]) for m in known if r[m]}) for r in rows]


def collected(here: Path, metrics: Iterable[str], read: Callable[[list[Path]], list[Run]]) -> list[Run]:
    """The runs of a finding: those of the folders on the command line, which results.csv then holds, or its own.

    Args:
        here: folder of the finding.
        metrics: columns of the table.
        read: the runs below some folders.
    """
    if len(sys.argv) > 1:
        write(read([Path(a).resolve() for a in sys.argv[1:]]), list(metrics), here / "results.csv")
    return load(here / "results.csv")


def of(runs: Sequence[Run], setting: str, metric: str) -> list[float]:
    """A metric of one setting, by seed."""
    own = sorted((r for r in runs if r.setting == setting and metric in r.numbers), key=lambda r: r.seed)
    return [r.numbers[metric] for r in own]


def error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 of a single value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def summary(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard error over seeds; a dash for none."""
    if not values:
        return "–"
    return f"{mean(values):.{digits}f} ± {error(values):.{digits}f}".replace("-", "\N{MINUS SIGN}")


def table(runs: Sequence[Run], settings: Mapping[str, str], metrics: Mapping[str, str], first: str) -> str:
    """Settings down, metrics across; both by the names that a reader sees."""
    head = [first, *metrics.values()]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for setting, name in settings.items():
        lines.append(f"| {' | '.join([name, *(summary(of(runs, setting, m)) for m in metrics)])} |")
    return "\n".join(lines)
