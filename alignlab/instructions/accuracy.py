"""Accuracies over many responses, each with its 95 % interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from alignlab.instructions.kinds import KINDS
from alignlab.instructions.tasks import Task
from alignlab.instructions.verdicts import Verdicts
from alignlab.metrics import Estimate

Judged = tuple[Task, Verdicts]
"""A task, and the verdicts on its response."""
LEVELS: Final = ("prompt", "instruction")
"""Units that are counted: prompts whose instructions are all followed, or instructions."""


@dataclass(frozen=True)
class Accuracy:
    """Share of what was followed, strictly and loosely.

    Args:
        strict: of the responses as they are.
        loose: of their readings.
    """

    strict: Estimate
    loose: Estimate


def accuracies(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Accuracy by level, and then by kind, of the kinds that occur.

    Instructions of one prompt are not independent, so the Wilson interval of their share is that of the number of
    independent ones that would tell as much (`alignlab.metrics.intervals.effective_size`).
    """
    occurring = {kind for task, _ in judged for kind in task.kinds}
    return {
        "prompt": _accuracy([(t.prompt, all(v.strict), all(v.loose)) for t, v in judged]),
        "instruction": _accuracy(_instructions(judged)),
        **{kind: _accuracy(_instructions(judged, kind)) for kind in KINDS if kind in occurring},
    }


def _instructions(judged: Sequence[Judged], only: str = "") -> list[tuple[str, bool, bool]]:
    """Prompt and verdicts of every instruction, or of those of a kind."""
    return [
        (task.prompt, strict, loose)
        for task, found in judged
        for kind, strict, loose in zip(task.kinds, found.strict, found.loose, strict=True)
        if only in ("", kind)
    ]


def _accuracy(outcomes: Sequence[tuple[str, bool, bool]]) -> Accuracy:
    strict = Estimate.share((prompt, followed) for prompt, followed, _ in outcomes)
    loose = Estimate.share((prompt, followed) for prompt, _, followed in outcomes)
    assert strict is not None and loose is not None, "there is an outcome"
    return Accuracy(strict, loose)


def to_json(found: Mapping[str, Accuracy]) -> dict[str, object]:
    """The accuracies as JSON: `prompt`, `instruction`, and `kinds` by id."""
    plain = {name: {"strict": _plain(a.strict), "loose": _plain(a.loose)} for name, a in found.items()}
    return {
        **{level: plain[level] for level in LEVELS},
        "kinds": {name: plain[name] for name in plain if name not in LEVELS},
    }


def table(found: Mapping[str, Accuracy]) -> list[str]:
    """The accuracies as the lines of a table, 95 % intervals in brackets; 80 columns."""
    names = {"prompt": "prompts", "instruction": "instructions"}
    head = f"{'followed':<44}{'of':>5}  {'strict':<14}  loose"
    rows = [f"{names.get(n, n):<44}{a.strict.count:>5}  {_cell(a.strict)}  {_cell(a.loose)}" for n, a in found.items()]
    return [line.rstrip() for line in (head, *rows)]


def _cell(share: Estimate) -> str:
    low, high = share.interval or (float(share), float(share))
    return f"{100 * share:3.0f}% ({100 * low:.0f}–{100 * high:.0f})".ljust(14)


def _plain(share: Estimate) -> dict[str, float | int | None]:
    followed = round(float(share) * share.count)
    return {"accuracy": float(share), "low": share.low, "high": share.high, "followed": followed, "count": share.count}
