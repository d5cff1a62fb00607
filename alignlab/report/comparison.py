"""Comparison of the models of a run: which metrics are shown, and what changed from model to model beyond noise."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignlab.metrics import Column, difference
from alignlab.metrics.intervals import Interval
from alignlab.report.lineage import Ends, Metrics, Parents, ends, is_meaningful
from alignlab.report.measurement import Measured, incomparable, remarks
from alignlab.report.numbers import Format
from alignlab.report.run import ModelView, RunView

NOT_FOR_TABLES = frozenset({"steps", "best_step", "seconds"})
UNDECLARED = 8
"""Metrics that are shown of models that no evaluation measured."""


@dataclass(frozen=True)
class Change:
    """How far a model is from the one that its training started from.

    Args:
        value: the difference.
        interval: 95 % interval of the difference, on the same prompts; None where it is not known.
        size: how large it is, 0 to 1: of a share the difference, else the difference over the sum of both numbers.
    """

    value: float
    interval: Interval | None
    size: float

    @property
    def is_sure(self) -> bool:
        """Whether it is more than noise: 0 lies outside of its interval."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    def tone(self, column: Column) -> int:
        """1 for a change to the better, -1 to the worse, 0 where it is neither or may be noise."""
        return column.better * (1 if self.value > 0 else -1) if self.is_sure else 0


@dataclass(frozen=True)
class Comparison:
    """The models of a run and what was measured of them.

    Args:
        models: numbers by model, in the order of the pipeline.
        parents: by model, the one that its training started from.
        columns: every metric that was measured, as declared.
        shown: those of the table.
        changes: by model and metric.
        formats: how the numbers of each metric are written.
        remarks: sentences on models that were measured differently.
    """

    models: Mapping[str, Metrics]
    parents: Parents
    columns: Sequence[Column]
    shown: Sequence[Column]
    changes: Mapping[str, Mapping[str, Change]]
    formats: Mapping[str, Format]
    remarks: Sequence[str] = ()

    def change(self, model: str, column: Column) -> Change | None:
        """How far a model is from its parent in one metric; None where they are not compared."""
        return self.changes[model].get(column.metric)

    def moved(self, column: Column, models: Iterable[str] | None = None) -> float:
        """Size of a metric's largest sure change, of all models or some."""
        names = self.models if models is None else models
        found = (self.changes[name].get(column.metric) for name in names)
        return max((c.size for c in found if c is not None and c.is_sure), default=0.0)

    @property
    def last(self) -> list[str]:
        """Models that no other model started from."""
        begun = set(self.parents.values())
        return [name for name in self.models if name not in begun]

    def headlines(self, limit: int = 4) -> list[tuple[Column, Ends]]:
        """The table's first metric that is better or worse, and of the others what moved most from step to step.

        The models take turns to name what they moved most, so that a first step that moves everything leaves room for
        the later ones. They are in the order of the table.
        """
        found = [(c, e) for c in self.shown if c.better and (e := ends(self.models, c, self.parents)) is not None]
        columns = [c for c, _ in found]
        turns = [self._most_moved_first(columns, name) for name in self.models if self.changes[name]]
        named = [*columns[:1], *(column for turn in zip(*turns, strict=True) for column in turn)]
        kept = list(dict.fromkeys(c.metric for c in named))[:limit]
        return [f for f in found if f[0].metric in kept]

    def _most_moved_first(self, columns: Sequence[Column], model: str) -> list[Column]:
        return sorted(columns, key=lambda c: -self.moved(c, [model]))


def compare(run: RunView) -> Comparison:
    """Compare the models of a run that were measured; where no evaluation measured any, those that were trained."""
    models = [m for m in run.models if m.columns]
    columns = _declared(models)
    if not models:
        models = [m for m in run.models if "validation_loss" in m.metrics]
        columns = _undeclared(models)
    numbers = {m.name: m.metrics for m in models}
    known = [c for c in columns if any(c.metric in found for found in numbers.values())]
    parents = {m.name: m.stage.parents.get("policy", "") for m in run.models}
    measured = [Measured.of(m) for m in models]
    changes = _changes(numbers, known, parents, incomparable(measured, parents))
    formats = {c.metric: Format.of((f[c.metric] for f in numbers.values() if c.metric in f), c.share) for c in known}
    return Comparison(numbers, parents, known, _shown(known, changes), changes, formats, remarks(measured))


def _declared(models: Iterable[ModelView]) -> list[Column]:
    """Columns of all models, each metric once."""
    found: dict[str, Column] = {}
    for column in (column for model in models for column in model.columns):
        found.setdefault(column.metric, column)
    return list(found.values())


def _undeclared(models: Sequence[ModelView]) -> list[Column]:
    """The metrics that most models have, as their stages name them."""
    names = dict.fromkeys(name for m in models for name in m.metrics if name not in NOT_FOR_TABLES)
    often = sorted(names, key=lambda name: -sum(name in m.metrics for m in models))
    return [Column(n, "as its training stage measured it", headline=True) for n in often[:UNDECLARED]]


def _changes(
    models: Mapping[str, Metrics], columns: Sequence[Column], parents: Parents, apart: frozenset[tuple[str, str]]
) -> dict[str, dict[str, Change]]:
    """By model and metric: how far it is from the model that it started from, where both were measured alike.

    Not from the first model: then each would be credited with what those before it had done.
    """
    found: dict[str, dict[str, Change]] = {name: {} for name in models}
    for name, metrics in models.items():
        before = models.get(parents.get(name, ""), {})
        for column in columns:
            metric = column.metric
            if metric in metrics and is_meaningful(before, column) and (name, metric) not in apart:
                found[name][metric] = _change(metrics[metric], before[metric], column)
    return found


def _change(new: float, old: float, column: Column) -> Change:
    gap, both = float(new) - float(old), abs(float(new)) + abs(float(old))
    size = abs(gap) if column.share else abs(gap) / both if both else 0.0
    return Change(gap, difference(new, old), size)


def _shown(columns: Sequence[Column], changes: Mapping[str, Mapping[str, Change]]) -> list[Column]:
    """The headline columns, and where another metric of a model moved more than each of them, that one."""
    headline = {c.metric for c in columns if c.headline} or {c.metric for c in columns[:UNDECLARED]}
    more = {metric for by_metric in changes.values() for metric in _most_moved(by_metric, headline)}
    return [c for c in columns if c.metric in headline | more]


def _most_moved(changes: Mapping[str, Change], headline: Iterable[str]) -> list[str]:
    sure = {metric: change.size for metric, change in changes.items() if change.is_sure}
    most = max(sure, key=lambda metric: sure[metric], default=None)
    return [most] if most is not None and sure[most] > max((sure.get(m, 0.0) for m in headline), default=0.0) else []
