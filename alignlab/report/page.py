"""Render a run into one HTML file that needs nothing else: no network, no other file.

Model output is not trusted: every text is escaped and stripped of control characters on its way
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

from alignlab.metrics import Column
from alignlab.report.answers import side_by_side
from alignlab.report.chart import Chart, charts
from alignlab.report.comparison import Comparison, compare
from alignlab.report.dots import DotRow
from alignlab.report.drawing import box_lines, drawing, drawn_stages
from alignlab.report.evaluation_panels import groups
from alignlab.report.frontier import frontiers
from alignlab.report.lineage import in_words
from alignlab.report.numbers import Format, duration, interval_of, number
from alignlab.report.raters import labelling
from alignlab.report.run import RunView, StageView
from alignlab.sanitize import printable, redact_text

TEMPLATES = Path(__file__).parent / "templates"
MOST_MOVED = 12
"""Shares that are drawn as dots, at most."""


@dataclass(frozen=True)
class Trained:
    """A training stage and its charts; the first few are open."""

    stage: StageView
    shown: Sequence[Chart]
    more: Sequence[Chart]

    @property
    def published(self) -> str:
        """Weights that the stage left, in words."""
        return _published(self.stage)


def render(run: RunView, experiment: str, now: datetime.datetime) -> str:
    """The page as text."""
    filters: dict[str, Any] = {"duration": duration, "number": number, "yaml": _yaml, "struck": struck}
    filters |= {"interval": interval_of, "described": _described, "meanings": _meanings}
    content = {"now": now, "experiment": experiment, **_content(run)}
    return fill("report.html.j2", ("report.css",), "report.js", content, filters)


def fill(
    template: str, styles: Sequence[str], script: str, content: Mapping[str, Any], filters: Mapping[str, Any]
) -> str:
    """A page as text, its style and its script in it.

    Args:
        template: file of the page, as its style sheets and its script.
        script: empty for none.
        content: names of the template.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_clean,
    )  # fmt: skip
    environment.filters |= filters
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    code = (TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(code), policy=_policy(style, code), **content
    )


def _content(run: RunView) -> dict[str, Any]:
    found, trained = compare(run), _trained(run)
    answering = [m for m in run.models if m.samples]
    asked = side_by_side(answering)
    colour = {m.name: f"m{i % 8}" for i, m in enumerate(run.measured)}
    return {
        "run": run,
        "found": found,
        "started": in_words(found.models, found.parents),
        "moved": [_dots(found, column) for column in _moved(found)],
        "first": next(iter(found.models), ""),
        "pipeline": drawing(run, colour) if run.stages else "",
        "boxes": {name: (stage, box_lines(stage, run)) for name, stage in drawn_stages(run).items()},
        "trained": trained,
        "referred": any("reference" in chart.lines for t in trained for chart in [*t.shown, *t.more]),
        "asked": asked,
        "judged_answers": any(row.verdicts for row in asked),
        "frontiers": frontiers(run, colour),
        "groups": groups(run.measured, colour),
        "answering": [m.name for m in answering],
        "labelling": labelling(list(run.stages.values())),
        "judged": [s for s in run.stages.values() if s.kind == "reward_model"],
        "colour": colour,
        "shades": colour,
        "share": Format(),
    }


def _moved(found: Comparison) -> list[Column]:
    """Shares that changed beyond noise from a model to one that it became; first what the last models moved most."""
    shares = [c for c in found.columns if c.share and found.moved(c) > 0]
    return sorted(shares, key=lambda c: (-found.moved(c, found.last), -found.moved(c)))[:MOST_MOVED]


def _dots(found: Comparison, column: Column) -> DotRow:
    values = {name: numbers[column.metric] for name, numbers in found.models.items() if column.metric in numbers}
    return DotRow(column.title, values, column.better)


def _described(stage: StageView) -> list[tuple[Column, float, str]]:
    """A stage's declared shares with their numbers and intervals, as text."""
    known = [(c, stage.metrics[c.metric]) for c in stage.columns.get("", ()) if c.metric in stage.metrics and c.share]
    return [(column, value, Format().interval(interval_of(value))) for column, value in known]


def _meanings(stage: StageView) -> dict[str, str]:
    """Meaning of each metric that the stage itself declares, with its unit."""
    units = {
        c.metric: f", in {c.unit}" if c.unit and c.unit not in c.meaning else "" for c in stage.columns.get("", ())
    }
    return {c.metric: c.meaning + units[c.metric] for c in stage.columns.get("", ())}


def _trained(run: RunView, shown: int = 3) -> list[Trained]:
    drawn = [(stage, charts(stage.curves())) for stage in run.stages.values()]
    return [Trained(stage, found[:shown], found[shown:]) for stage, found in drawn if found]


def _published(stage: StageView) -> str:
    """Weights that a stage left: where it kept the last ones, its best validation is named too."""
    best, loop = stage.metrics.get("best_step"), stage.artifact.manifest.get("config", {}).get("loop")
    if best is None:
        return ""
    if isinstance(loop, Mapping) and loop.get("keep") == "last" and best != stage.metrics.get("steps"):
        return f"published: the last step (validation was best at step {number(best)})"
    return f"published: step {number(best)}, where validation was best"


def _clean(value: Any) -> Any:
    """Every text that a template prints, except our own markup."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return printable(redact_text(value, "commit"), limit=20_000)  # a commit has the form of an old key of W&B


def struck(words: str) -> Markup:
    """Words to be struck out, except the bullets among them: a line through a bullet reads as a longer dash."""
    parts = _BULLET.split(words)
    return Markup("").join(p if i % 2 else Markup("<s>{}</s>").format(p) for i, p in enumerate(parts) if p)


_BULLET = re.compile(r"((?:^|(?<=\s)|\s+)[-–—*•](?:\s+|$))")


def _policy(style: str, script: str) -> str:
    """A content security policy under which nothing is loaded and nothing runs but our own."""
    own = {"style": style, "script": script}
    hashes = {k: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for k, text in own.items() if text}
    allowed = "".join(f"{kind}-src 'sha256-{digest}'; " for kind, digest in hashes.items())
    return f"default-src 'none'; {allowed}base-uri 'none'; form-action 'none'"


def _yaml(value: Mapping[str, Any]) -> str:
    """A config as its author would write it."""
    import yaml

    return str(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100))
