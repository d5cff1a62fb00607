"""Files of an artifact that describe its metrics: `columns.json`, `by_prompt.jsonl` and `panels.json`.

`metrics.json` holds every number under its metric's name, and the ends of its interval as `<name>_low` and
`<name>_high`. `columns.json` says what the metrics are. `by_prompt.jsonl` holds the outcomes by prompt, from which two
models are compared on the prompts that they share. `panels.json` holds what an evaluation adds to the report.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from alignlab.artifact import Artifact, write_json, write_lines
from alignlab.errors import ConfigError
from alignlab.metrics.column import Column
from alignlab.metrics.estimate import Estimate
from alignlab.metrics.panel import Panel
from alignlab.metrics.tally import Tally

COLUMNS: Final = "columns.json"
PANELS: Final = "panels.json"
BY_PROMPT: Final = "by_prompt.jsonl"
ENDS: Final = ("_low", "_high")


def with_intervals(metrics: Mapping[str, float]) -> dict[str, float]:
    """Plain numbers by name, with the ends of each interval after its number, as `metrics.json` holds them."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        found[name] = float(value)
        if isinstance(value, Estimate) and value.interval is not None:
            found |= {f"{name}{end}": limit for end, limit in zip(ENDS, value.interval, strict=True)}
    return found


def write_columns(folder: Path, columns: Sequence[Column], evaluation: str = "") -> None:
    """Describe an artifact's metrics; several calls add up.

    Args:
        folder: of the artifact.
        columns: of its metrics, in the order of a table.
        evaluation: the evaluation that measures them, by its name in the stage; empty for a stage's own metrics.
    """
    _append(folder / COLUMNS, columns, evaluation)


def write_panels(folder: Path, panels: Sequence[Panel], evaluation: str = "") -> None:
    """Write what an evaluation adds to the report; several calls add up, and nothing is written of no panels.

    Args:
        folder: of the artifact.
        panels: in the order of the report.
        evaluation: that they are of, by its name in the stage.
    """
    if panels:
        _append(folder / PANELS, panels, evaluation)


def _append(file: Path, described: Sequence[Column] | Sequence[Panel], evaluation: str) -> None:
    write_json(file, [*_listed(file), *({**one.to_json(), "evaluation": evaluation} for one in described)])


def _listed(file: Path) -> list[Any]:
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []


def write_outcomes(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write the outcomes by prompt of those metrics that have them."""
    rows = [_row(name, e) for name, e in metrics.items() if isinstance(e, Estimate) and e.tallies]
    write_lines(folder / BY_PROMPT, rows)


def _row(name: str, estimate: Estimate) -> dict[str, Any]:
    tallies = [tally.to_json() for tally in estimate.tallies]
    return {"metric": name, "method": estimate.method, "count": estimate.count, "parts": tallies}


def read_columns(artifact: Artifact) -> dict[str, list[Column]]:
    """Columns of an artifact by evaluation, in the order of a table; nothing where it describes none."""
    file = artifact.path / COLUMNS
    found: dict[str, list[Column]] = {}
    for node in _listed(file):
        found.setdefault(str(node.get("evaluation", "")), []).append(Column.from_json(node, str(file)))
    return found


def read_panels(artifact: Artifact) -> list[tuple[str, Panel]]:
    """Evaluation and panel, for each panel of an artifact.

    Raises:
        ConfigError: the file is damaged.
    """
    file = artifact.path / PANELS
    try:
        return [(str(node["evaluation"]), Panel.from_json(node, str(file))) for node in _listed(file)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error!r})") from error


def read_metrics(artifact: Artifact) -> dict[str, float]:
    """An artifact's metrics by name; those that have an interval are estimates, with their outcomes if they are known.

    The ends of an interval (`<name>_low`, `<name>_high`) belong to their number and are not metrics of their own.
    """
    return estimates(artifact.metrics(), {str(row["metric"]): row for row in artifact.lines(BY_PROMPT)})


def estimates(plain: Mapping[str, float], outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Numbers as `with_intervals` wrote them: those that have an interval as estimates.

    Args:
        plain: numbers by name, and the ends of their intervals.
        outcomes: rows of `by_prompt.jsonl`, by metric.
    """
    ends = {f"{name}{end}" for name in plain for end in ENDS if all(f"{name}{e}" in plain for e in ENDS)}
    return {name: _estimate(name, plain, outcomes.get(name)) for name in plain if name not in ends}


def _estimate(name: str, plain: Mapping[str, float], row: Mapping[str, Any] | None) -> float:
    low, high = (plain.get(f"{name}{end}") for end in ENDS)
    if row is None and low is None:
        return plain[name]
    known = row or {"method": "given", "count": 0, "parts": []}
    tallies = [Tally.from_json(part) for part in known["parts"]]
    return Estimate(plain[name], low, high, int(known["count"]), known["method"], tallies)
