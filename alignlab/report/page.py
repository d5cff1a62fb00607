"""Renders a run into one HTML file that needs nothing else: no network, no other file.

Model output is hostile until shown otherwise: every text is escaped and stripped of control characters on its way
into the page, and the page's own policy runs no script and no style but the two that are hashed in its head.
"""

import base64
import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignlab.report.answers import side_by_side
from alignlab.report.chart import Chart, charts
from alignlab.report.columns import MOVED, Column, Metrics, columns_for, duration, evaluated, number
from alignlab.report.drawing import box_lines, drawing, drawn_stages
from alignlab.report.lineage import Ends, Parents, differences, ends, in_words
from alignlab.report.raters import labelling
from alignlab.report.run import ModelView, RunView, StageView
from alignlab.sanitize import printable

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Headline:
    """A metric from the first model that has it to those that a run ends with."""

    column: Column
    ends: Ends


@dataclass(frozen=True)
class Trained:
    """A training stage and its charts; the first few are shown at once."""

    stage: StageView
    shown: Sequence[Chart]
    more: Sequence[Chart]

    @property
    def published(self) -> str:
        """Which weights the stage left, in words."""
        return _published(self.stage)


def render(run: RunView, experiment: str, now: datetime.datetime) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip
    environment.filters |= {"duration": duration, "number": number, "yaml": _yaml, "struck": struck}
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        style=Markup(style), script=Markup(script), policy=_policy(style, script), now=now, experiment=experiment,
        **_content(run),
    )  # fmt: skip


def _content(run: RunView) -> dict[str, Any]:
    models = _evaluated(run)
    metrics = {m.name: m.metrics for m in models}
    parents = {m.name: m.stage.parents.get("policy", "") for m in models}
    columns = columns_for(metrics)
    trained = _trained(run)
    colour = {m.name: f"m{i % 8}" for i, m in enumerate(run.models)}
    return {
        "run": run,
        "models": models,
        "columns": columns,
        "moved_by": differences(metrics, columns, parents),
        "started": in_words(metrics, parents),
        "headlines": _headlines(metrics, columns, {m.name: m.stage.parents.get("policy", "") for m in run.models}),
        "metrics": metrics,
        "moved": [c for c in MOVED if sum(c.metric in m.metrics for m in models) > 1],
        "pipeline": drawing(run, colour) if run.stages else "",
        "boxes": {name: (stage, box_lines(stage, run)) for name, stage in drawn_stages(run).items()},
        "trained": trained,
        "referred": any("reference" in chart.lines for t in trained for chart in [*t.shown, *t.more]),
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
    models: Mapping[str, Metrics], columns: Sequence[Column], parents: Parents, limit: int = 4
) -> list[Headline]:
    """What the run is about, in four numbers: from the base model to each that nothing was made from any more."""
    found = [Headline(c, e) for c in columns if c.better and (e := ends(models, c, parents)) is not None]
    return sorted(found, key=lambda h: _PRIORITY.get(h.column.metric, 9))[:limit]


_PRIORITY = {"instruction_following": 0, "fact_recall": 1, "confident_when_wrong": 2, "true_taste": 3}


def _trained(run: RunView, shown: int = 3) -> list[Trained]:
    drawn = [(stage, charts(stage.curves())) for stage in run.stages.values()]
    return [Trained(stage, found[:shown], found[shown:]) for stage, found in drawn if found]


def _published(stage: StageView) -> str:
    """Which weights a stage left: its best validation tells little where it kept the last."""
    best, loop = stage.metrics.get("best_step"), stage.artifact.manifest.get("config", {}).get("loop")
    if best is None:
        return ""
    if isinstance(loop, Mapping) and loop.get("keep") == "last" and best != stage.metrics.get("steps"):
        return f"published: the last step (validation was best at step {number(best)})"
    return f"published: step {number(best)}, where validation was best"


def _clean(value: Any) -> Any:
    """Every text that a template prints, but for our own markup."""
    return printable(value, limit=20_000) if isinstance(value, str) and not isinstance(value, Markup) else value


def struck(words: str) -> Markup:
    """Words to be struck out, but for the bullets among them: a line through a bullet reads as a longer dash."""
    parts = _BULLET.split(words)
    return Markup("").join(p if i % 2 else Markup("<s>{}</s>").format(p) for i, p in enumerate(parts) if p)


_BULLET = re.compile(r"((?:^|(?<=\s)|\s+)[-–—*•](?:\s+|$))")


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
