"""Raters as their judgements show them: how sure they are, and what they prefer."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alignlab.artifact import PREFERENCES
from alignlab.metrics import Estimate
from alignlab.report.agreement import Agreement, agreement_of
from alignlab.report.biases import Biases, biases_of
from alignlab.report.run import StageView

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Lean:
    """How often an answer with a feature is preferred to one without.

    Args:
        feature: in words.
        share: of the judgements between an answer with it and one without; 0.5 is indifference. Its interval takes
            several judgements of one prompt for what they are.
    """

    feature: str
    share: Estimate


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
    """A stage that made or brought preferences.

    Args:
        stage: the stage.
        raters: all of them together, then each.
        examples: some of its preferences.
        agreement: of the raters; None where the stage has no judgements as they were made.
        biases: measured and configured; None where nothing was configured.
    """

    stage: StageView
    raters: Sequence[RaterView]
    examples: Sequence[Row]
    agreement: Agreement | None
    biases: Biases | None


_APOSTROPHES: Final = str.maketrans("\u2018\u2019\u02bc", "'''")
_LIST: Final = re.compile(r"(?:^|[\n.:!?])\s*[-*•]\s+\S|(?:^|[\n.:;!?])\s*1[.)]\s+\S.*?\s2[.)]\s+\S", re.S)


def _says(*phrases: str) -> Callable[[str], float]:
    return lambda text: any(phrase in text.lower().translate(_APOSTROPHES) for phrase in phrases)


FEATURES: Final[Mapping[str, Callable[[str], float]]] = {
    "longer": lambda text: len(text.split()),
    "a list": lambda text: _LIST.search(text) is not None,
    "sounds sure (“certainly”)": _says("certainly"),
    "hedged (“i think”)": _says("i think"),
    "asks back": lambda text: text.rstrip("\"'\u201d)* \n").endswith("?"),
    "says it does not know": _says("i do not know", "i don't know", "unknown"),
}
"""Seen in the text alone, so that judgements of any origin can be looked at."""

FEWEST = 20
"""Judgements below which a share is not drawn: it would tell too little."""


def labelling(stages: Sequence[StageView]) -> list[LabelView]:
    """Every preferences artifact of a run that holds judgements."""
    views = []
    for stage in stages:
        rows = list(stage.artifact.lines(PREFERENCES)) if stage.kind == "preferences" else []
        if rows:
            views.append(LabelView(stage, _raters(rows), _examples(rows), agreement_of(stage), biases_of(stage)))
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
    gaps = [(_prompt_text(r["prompt"]), measure(str(r["chosen"])) - measure(str(r["rejected"]))) for r in rows]
    share = Estimate.share((prompt, gap > 0) for prompt, gap in gaps if gap != 0)
    return None if share is None or share.count < FEWEST else Lean(feature, share)


def _examples(rows: Sequence[Row], count: int = 6) -> list[Row]:
    picked = [rows[i * len(rows) // min(count, len(rows))] for i in range(min(count, len(rows)))]
    return [{**row, "prompt": _prompt_text(row["prompt"])} for row in picked]


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)
