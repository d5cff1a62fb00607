"""Lineage of the models: the model that each was trained from, and that its numbers are compared with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from alignlab.metrics import Column
from alignlab.sanitize import printable

MEANINGLESS: Final = 0.1
"""Share of `Column.only_if` below which a number means nothing."""

Metrics = Mapping[str, float]
Parents = Mapping[str, str]
"""By model: the one that its training started from."""


def is_meaningful(metrics: Metrics, column: Column) -> bool:
    """Whether a model has the number, and the share without which it means nothing (see `Column.only_if`)."""
    return column.metric in metrics and metrics.get(column.only_if, 1.0) >= MEANINGLESS


def in_words(models: Iterable[str], parents: Parents) -> str:
    """`sft from pretrain, dpo and ppo from sft`; empty where none started from another of them."""
    names = list(models)
    started = {p: [printable(n) for n in names if parents.get(n) == p] for p in names}
    return ", ".join(f"{_listed(children)} from {printable(p)}" for p, children in started.items() if children)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Ends:
    """The first and the last models of a run that have a column's number.

    Args:
        base: the first model that has the number.
        last: those that come from it and that no other model started from.
        others: the rest of those that have it.
    """

    base: str
    last: Sequence[str]
    others: Sequence[str]


def ends(models: Mapping[str, Metrics], column: Column, parents: Parents) -> Ends | None:
    """The ends of a column; None where nothing follows its first model."""
    names = [name for name, metrics in models.items() if is_meaningful(metrics, column)]
    begun = {parents.get(name) for name in names}
    last = [name for name in names[1:] if name not in begun and names[0] in _ancestors(name, parents)]
    others = [name for name in names[1:] if name not in last]
    return Ends(names[0], last, others) if last else None


def _ancestors(name: str, parents: Parents) -> list[str]:
    found: list[str] = []
    while (name := parents.get(name, "")) and name not in found:
        found.append(name)
    return found
