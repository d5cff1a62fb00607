"""Panels that evaluations add to the report: those of one title stand together, model by model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from alignlab.metrics import Column, Panel, Points, Profile
from alignlab.report.dots import DotRow
from alignlab.report.numbers import Format, interval_of
from alignlab.report.plot import Plot, Series
from alignlab.report.run import ModelView

COLOURS = 8


@dataclass(frozen=True)
class Figure:
    """A number below a model's part of a panel: its title, value and interval as text, and its meaning."""

    title: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Part:
    """One model's part.

    Args:
        model: its name.
        panel: as its evaluation returned it.
        drawing: of points; None of tables and texts.
        figures: metrics that the panel names.
    """

    model: str
    panel: Panel
    drawing: Markup | None
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Group:
    """Panels of one title and evaluation.

    Args:
        evaluation: its name in the stage.
        panel: the first of them.
        legend: colour of each series; empty where each model has a single one, in the model's colour.
        parts: by model; none of a profile.
        rows: of a profile, a line for each share.
    """

    evaluation: str
    panel: Panel
    legend: Mapping[str, str]
    parts: Sequence[Part]
    rows: Sequence[DotRow]

    @property
    def kind(self) -> str:
        """Kind of its parts: "points", "profile", "table" or "text"."""
        return type(self.panel.content).__name__.lower()

    @property
    def models(self) -> list[str]:
        """Names of the models of a profile."""
        return list(dict.fromkeys(name for row in self.rows for name in row.values))


def groups(models: Sequence[ModelView], colour: Mapping[str, str]) -> list[Group]:
    """The panels of all models, in the order in which they are met.

    Args:
        colour: class of each model's colour.
    """
    found: dict[tuple[str, str, type], list[tuple[ModelView, Panel]]] = {}
    for model in models:
        for evaluation, panel in model.panels:
            key = evaluation, panel.title, type(panel.content)
            found.setdefault(key, []).append((model, panel))
    made = [_group(key[0], both, colour) for key, both in found.items()]
    return [group for group in made if group.parts or group.rows]


def _group(evaluation: str, both: Sequence[tuple[ModelView, Panel]], colour: Mapping[str, str]) -> Group:
    first = both[0][1]
    if isinstance(first.content, Profile):
        return Group(evaluation, first, {}, (), profile_rows([m for m, _ in both], [p for _, p in both]))
    legend = _legend([p for _, p in both])
    drawings = _drawings(both, legend, colour)
    models = [m for m, _ in both]
    parts = [Part(m.name, p, drawings.get(m.name), _figures(m, p, models)) for m, p in both]
    return Group(evaluation, first, legend, parts, ())


# ---- profiles --------------------------------------------------------------------------------------------------------
def profile_rows(models: Sequence[ModelView], panels: Sequence[Panel]) -> list[DotRow]:
    """A line for each share of a profile that is above 0 in a model."""
    columns = {c.metric: c for model in models for c in model.columns if c.share}
    contents = [p.content for p in panels if isinstance(p.content, Profile)]
    named = dict.fromkeys(metric for content in contents for metric in content.metrics if metric in columns)
    values = {metric: {m.name: m.metrics[metric] for m in models if metric in m.metrics} for metric in named}
    return [_row(columns[metric], found) for metric, found in values.items() if any(found.values())]


def _row(column: Column, values: Mapping[str, float]) -> DotRow:
    return DotRow(column.title, values, column.better, column.meaning)


# ---- points ----------------------------------------------------------------------------------------------------------
def _legend(panels: Sequence[Panel]) -> dict[str, str]:
    """Class of the colour of each series; nothing where each panel has one series at most."""
    contents = [p.content for p in panels if isinstance(p.content, Points)]
    if all(len(content.series) < 2 for content in contents):
        return {}
    names = dict.fromkeys(name for content in contents for name in content.series)
    return {name: f"m{(i + 1) % COLOURS}" for i, name in enumerate(names)}


def _drawings(
    both: Sequence[tuple[ModelView, Panel]], legend: Mapping[str, str], colour: Mapping[str, str]
) -> dict[str, Markup]:
    """Each model's drawing, all of them on the same axes."""
    contents = {m.name: p.content for m, p in both if isinstance(p.content, Points)}
    if not contents:
        return {}
    first = next(iter(contents.values()))
    every = [point for content in contents.values() for points in content.series.values() for point in points]
    plot = Plot.around(every, first.x, first.y, any(c.diagonal for c in contents.values()))
    return {
        name: plot.drawn([
            Series(series, points, legend.get(series, colour[name]), content.joined)
            for series, points in content.series.items()
        ])
        for name, content in contents.items()
    }  # fmt: skip


def _figures(model: ModelView, panel: Panel, models: Sequence[ModelView]) -> list[Figure]:
    """The metrics that a panel names, written alike for all models."""
    columns = {c.metric: c for c in model.columns}
    known = [columns[m] for m in panel.metrics if m in columns and m in model.metrics]
    return [_figure(column, model.metrics[column.metric], models) for column in known]


def _figure(column: Column, value: float, models: Sequence[ModelView]) -> Figure:
    written = Format.of((m.metrics[column.metric] for m in models if column.metric in m.metrics), column.share)
    return Figure(column.title, written.text(value), written.interval(interval_of(value)), column.meaning)
