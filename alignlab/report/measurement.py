"""Measuring of the models: two that were not measured alike are not compared, and the report says so."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alignlab.metrics import Column
from alignlab.report.run import ModelView

Setting = tuple[str, ...]
"""Path of a value in the configuration of an evaluation."""
REFERENCE: Final = "measured by"
"""First part of the path under which a metric's reference is compared."""
SHOWN: Final = 2
"""Differing settings that are named; the record has all of them."""
NAMED: Final = 3
"""Metrics that are named even where they are all of an evaluation."""


@dataclass(frozen=True)
class Measured:
    """The measuring of one model.

    Args:
        model: its name.
        settings: of its evaluations and their sampling, by path: ("world", "samples_per_question") -> 3.
        columns: by evaluation.
    """

    model: str
    settings: Mapping[Setting, object]
    columns: Mapping[str, Sequence[Column]]

    @classmethod
    def of(cls, model: ModelView) -> "Measured":
        """Read it from the manifests of a model's evaluations."""
        settings: dict[Setting, object] = {}
        columns: dict[str, Sequence[Column]] = {}
        for view in model.evaluations:
            config = view.artifact.manifest.get("config") or {}
            for name, declared in view.columns.items():
                columns[name] = declared
                made = (config.get("evaluations") or {}).get(name) or {}
                settings |= {(name, *path): value for path, value in _leaves(made)}
                settings |= {(name, "sampling", *path): value for path, value in _leaves(config.get("sampling"))}
                settings |= {(name, REFERENCE, c.metric): c.reference for c in declared if c.reference}
        return cls(model.name, settings, columns)


def _leaves(node: Any, path: Setting = ()) -> Iterator[tuple[Setting, object]]:
    """Every value of a configuration with its path."""
    if isinstance(node, Mapping):
        for key, part in node.items():
            yield from _leaves(part, (*path, str(key)))
    elif isinstance(node, list):
        for number, part in enumerate(node):
            yield from _leaves(part, (*path, str(number)))
    else:
        yield path, node


@dataclass(frozen=True)
class Mismatch:
    """An evaluation of which two models differ.

    Args:
        evaluation: its name.
        metrics: that are not comparable.
        settings: that differ, with the value of either model.
        whole: whether these are all metrics of the evaluation.
    """

    evaluation: str
    metrics: Sequence[str]
    settings: Sequence[tuple[Setting, object, object]]
    whole: bool


def mismatches(one: Measured, other: Measured) -> list[Mismatch]:
    """Evaluations that both models have, and that were not the same."""
    found = []
    for evaluation, columns in one.columns.items():
        if evaluation in other.columns and (changed := _changed(one, other, evaluation)):
            metrics = _affected(columns, changed)
            found.append(Mismatch(evaluation, metrics, changed, len(metrics) == len(columns)))
    return found


def _changed(one: Measured, other: Measured, evaluation: str) -> list[tuple[Setting, object, object]]:
    paths = dict.fromkeys(p for p in (*one.settings, *other.settings) if p[0] == evaluation)
    both = [(path, one.settings.get(path), other.settings.get(path)) for path in paths]
    return [(path, mine, its) for path, mine, its in both if mine != its]


def _affected(columns: Sequence[Column], changed: Sequence[tuple[Setting, object, object]]) -> list[str]:
    """Metrics that depend on a changed setting: those whose own argument it is, or all where it is nobody's."""
    own = {c.metric: tuple(c.argument.split(".")) for c in columns if c.argument}
    found: set[str] = set()
    for (_, *path), _, _ in changed:
        owners = [m for m, argument in own.items() if tuple(path[: len(argument)]) == argument]
        owners += path[1:] if path[0] == REFERENCE else []
        found.update(owners or [c.metric for c in columns])
    return [c.metric for c in columns if c.metric in found]


def incomparable(measured: Sequence[Measured], parents: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """(model, metric) that were not measured as those of the model that it started from."""
    by_name = {m.model: m for m in measured}
    pairs = [(m, by_name[parents[m.model]]) for m in measured if parents.get(m.model) in by_name]
    return frozenset(
        (m.model, metric) for m, parent in pairs for found in mismatches(m, parent) for metric in found.metrics
    )


def remarks(measured: Sequence[Measured]) -> list[str]:
    """A sentence per model that was measured differently from the first one."""
    return [_remark(m.model, measured[0].model, found) for m in measured[1:] for found in mismatches(m, measured[0])]


def _remark(model: str, first: str, found: Mismatch) -> str:
    # The texts that name a yardstick say less than the settings that made it.
    told = [s for s in found.settings if s[0][1] != REFERENCE] or found.settings
    settings = ", ".join(_told(path[1:], mine, its) for path, mine, its in told[:SHOWN])
    more = f", and {len(told) - SHOWN} more settings differ" if len(told) > SHOWN else ""
    all_of_many = found.whole and len(found.metrics) > NAMED
    names = f"no number of {found.evaluation} can" if all_of_many else f"{', '.join(found.metrics)} cannot"
    return f"{model} was not measured as {first} was: {settings}{more}; {names} be compared between the two"


def _told(path: Setting, mine: object, its: object) -> str:
    if path[0] == REFERENCE:
        return f"{path[1]} by {mine} and not by {its}"
    return f"{'.'.join(path)} is {mine} and not {its}"
