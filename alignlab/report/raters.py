"""What the judgements say of those who judged: how sure they are, and what they prefer."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alignlab.artifact import PREFERENCES
from alignlab.report.run import StageView

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Lean:
    """How often an answer with a feature is preferred to one without.

    Args:
        feature: in words.
        share: of the judgements between an answer with it and one without; 0.5 is indifference.
        low, high: 95 % Wilson interval.
        count: of such judgements.
    """

    feature: str
    share: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class RaterView:
    """One rater, or all of them.

    Args:
        name: as in the panel.
        judgements: how many.
        repeatable: how often the same rater, asked again, would choose the same; None where probabilities are unknown.
        leans: what it prefers.
    """

    name: str
    judgements: int
    repeatable: float | None
    leans: Sequence[Lean]


@dataclass(frozen=True)
class LabelView:
    """One stage that made or brought preferences."""

    stage: StageView
    raters: Sequence[RaterView]
    examples: Sequence[Row]


FEATURES: Final[Mapping[str, Callable[[str], float]]] = {
    "longer": lambda text: len(text.split()),
    "a list": lambda text: bool(re.search(r"(?:^|\s)(?:[-*•]|1\.) ", text)),
    "sounds sure (“certainly”)": lambda text: "certainly" in text.lower(),
    "hedged (“i think”)": lambda text: "i think" in text.lower(),
    "asks back": lambda text: text.rstrip().endswith("?"),
    "says it does not know": lambda text: "i do not know" in text.lower(),
}
"""Seen in the text alone, so that judgements of any origin can be looked at."""

FEWEST = 20
"""Judgements below which a share tells too little to be drawn."""


def labelling(stages: Sequence[StageView]) -> list[LabelView]:
    """Every preferences artifact of a run that holds judgements."""
    views = []
    for stage in stages:
        rows = list(stage.artifact.lines(PREFERENCES)) if stage.kind == "preferences" else []
        if rows:
            views.append(LabelView(stage, _raters(rows), _examples(rows)))
    return views


def _raters(rows: Sequence[Row]) -> list[RaterView]:
    names = sorted({str(r["rater"]) for r in rows if r.get("rater")})
    everyone = [_rater("all judgements", rows)]
    return everyone + [_rater(n, [r for r in rows if str(r.get("rater")) == n]) for n in names if len(names) > 1]


def _rater(name: str, rows: Sequence[Row]) -> RaterView:
    known = [float(r["probability"]) for r in rows if r.get("probability") is not None]
    repeatable = sum(p * p + (1 - p) * (1 - p) for p in known) / len(known) if known else None
    leans = [lean for feature in FEATURES if (lean := _lean(feature, rows)) is not None]
    return RaterView(name, len(rows), repeatable, leans)


def _lean(feature: str, rows: Sequence[Row]) -> Lean | None:
    measure = FEATURES[feature]
    gaps = [measure(str(r["chosen"])) - measure(str(r["rejected"])) for r in rows]
    count, won = sum(g != 0 for g in gaps), sum(g > 0 for g in gaps)
    if count < FEWEST:
        return None
    return Lean(feature, won / count, *wilson(won, count), count)


def wilson(won: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson 1927); it stays within 0 and 1."""
    share, squared = won / count, z * z / count
    middle = (share + squared / 2) / (1 + squared)
    half = z / (1 + squared) * math.sqrt(share * (1 - share) / count + squared / (4 * count))
    return middle - half, middle + half


def _examples(rows: Sequence[Row], count: int = 6) -> list[Row]:
    picked = [rows[i * len(rows) // min(count, len(rows))] for i in range(min(count, len(rows)))]
    return [{**row, "prompt": _prompt_text(row["prompt"])} for row in picked]


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)
