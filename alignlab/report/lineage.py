"""Which model started from which: what a model's numbers are held against."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignlab.report.columns import Column, Metrics
from alignlab.sanitize import printable

ANSWERS = 0.1
"""A model that follows fewer instructions than this share does not answer, it goes on with a text."""

Parents = Mapping[str, str]
"""By model: the one that its training started from."""


def measured(metrics: Metrics, column: Column) -> bool:
    """Whether the number tells something of this model.

    A base model's few accidental answers are no measure for those of later models: see `Column.of_answers`.
    """
    answers = not column.of_answers or metrics.get("instruction_following", 1.0) >= ANSWERS
    return answers and column.metric in metrics


def differences(
    models: Mapping[str, Metrics], columns: Iterable[Column], parents: Parents
) -> dict[str, dict[str, float]]:
    """By model and metric: how far it is from the model that it started from, where both were measured.

    Not from the first model: by that, each would be credited with what those before it had done.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for name, metrics in models.items():
        before = models.get(parents.get(name, ""), {})
        for column in columns:
            if column.metric in metrics and measured(before, column):
                found[name][column.metric] = metrics[column.metric] - before[column.metric]
    return found


def in_words(models: Iterable[str], parents: Parents) -> str:
    """`sft from pretrain, dpo and ppo from sft`; empty where none started from another of them."""
    names = list(models)
    started = {p: [printable(n) for n in names if parents.get(n) == p] for p in names}
    return ", ".join(f"{_listed(children)} from {printable(p)}" for p, children in started.items() if children)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Ends:
    """Where a column's number comes from and where it ends.

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
    names = [name for name, metrics in models.items() if measured(metrics, column)]
    begun = {parents.get(name) for name in names}
    last = [name for name in names[1:] if name not in begun and names[0] in _ancestors(name, parents)]
    others = [name for name in names[1:] if name not in last]
    return Ends(names[0], last, others) if last else None


def _ancestors(name: str, parents: Parents) -> list[str]:
    found: list[str] = []
    while (name := parents.get(name, "")) and name not in found:
        found.append(name)
    return found
