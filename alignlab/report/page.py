"""Renders a run into one HTML file that needs nothing else: no network, no other file.

Model output is hostile until shown otherwise: every text is escaped and stripped of control characters on its way
into the page, and the page's own policy runs no script and no style but the two that are hashed in its head.
"""

import base64
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignlab.report.answers import side_by_side
from alignlab.report.chart import Chart, charts
from alignlab.report.columns import MOVED, Column, columns_for, differences, duration, evaluated, number, signed
from alignlab.report.drawing import box_lines, drawing, drawn_stages
from alignlab.report.raters import labelling
from alignlab.report.run import ModelView, RunView, StageView
from alignlab.text import printable

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Headline:
    """A metric from the first model to the later ones."""

    column: Column
    values: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Trained:
    """A training stage and its charts; the first few are shown at once."""

    stage: StageView
    shown: Sequence[Chart]
    more: Sequence[Chart]


def render(run: RunView, experiment: str, now: datetime.datetime) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip
    environment.filters |= {"duration": duration, "number": number, "yaml": _yaml}
    environment.globals |= {"signed": signed}
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        style=Markup(style), script=Markup(script), policy=_policy(style, script), now=now, experiment=experiment,
        **_content(run),
    )  # fmt: skip


def _content(run: RunView) -> dict[str, Any]:
    models = _evaluated(run)
    metrics = {m.name: m.metrics for m in models}
    columns = columns_for(metrics)
    moved = differences(metrics, columns)
    colour = {m.name: f"m{i % 8}" for i, m in enumerate(run.models)}
    return {
        "run": run,
        "models": models,
        "columns": columns,
        "moved_by": moved,
        "headlines": _headlines(models, columns, moved),
        "moved": [c for c in MOVED if sum(c.metric in m.metrics for m in models) > 1],
        "pipeline": drawing(run, colour) if run.stages else "",
        "boxes": {name: (stage, box_lines(stage, run)) for name, stage in drawn_stages(run).items()},
        "trained": _trained(run),
        "asked": side_by_side([m for m in run.models if m.samples]),
        "answering": [m.name for m in run.models if m.samples],
        "labelling": labelling(list(run.stages.values())),
        "reward_models": [s for s in run.stages.values() if s.kind == "reward_model" and "accuracy" in s.metrics],
        "colour": colour,
    }


def _evaluated(run: RunView) -> list[ModelView]:
    names = evaluated({m.name: m.metrics for m in run.models})
    return [m for m in run.models if m.name in names]


def _headlines(
    models: Sequence[ModelView], columns: Sequence[Column], moved: Mapping[str, Mapping[str, float]], limit: int = 4
) -> list[Headline]:
    """What the run is about, in four numbers: from the first model of a column to the later ones."""
    found = []
    for column in columns:
        later = [m for m in models if column.metric in moved[m.name]]
        first = [m for m in models[: models.index(later[0])] if column.metric in m.metrics][-1:] if later else []
        having = [(m.name, column.text(m.metrics[column.metric])) for m in first + later]
        if column.better and len(having) > 1:
            found.append(Headline(column, having))
    return sorted(found, key=lambda h: _PRIORITY.get(h.column.metric, 9))[:limit]


_PRIORITY = {"instruction_following": 0, "fact_recall": 1, "confident_when_wrong": 2, "true_taste": 3}


def _trained(run: RunView, shown: int = 3) -> list[Trained]:
    drawn = [(stage, charts(stage.curves())) for stage in run.stages.values()]
    return [Trained(stage, found[:shown], found[shown:]) for stage, found in drawn if found]


def _clean(value: Any) -> Any:
    """Every text that a template prints, but for our own markup."""
    return printable(value, limit=20_000) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(style: str, script: str) -> str:
    """A content security policy under which nothing is loaded and nothing runs but our own."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _yaml(value: Mapping[str, Any]) -> str:
    """A config as its author would write it."""
    import yaml

    return str(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100))
