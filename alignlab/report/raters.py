"""Raters as their judgements show them: how sure they are, and what they prefer."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alignlab.artifact import PREFERENCES
from alignlab.judgements.records import Judgement
from alignlab.metrics import Estimate
from alignlab.report.agreement import LIMIT, Agreement, agreement_of, judgements_of
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
            made = judgements_of(stage)
            told = rows if any(row.get("rater") for row in rows) else _chosen(made) or rows
            views.append(LabelView(stage, _raters(told), _examples(rows), agreement_of(made), biases_of(stage)))
    return views


def _chosen(judgements: Sequence[Judgement]) -> list[Row]:
    """Judgements of two answers as rows; where several made one label, its row does not say who judged."""
    pairs = [(j, j.choice) for j in judgements if j.choice is not None and len(j.answers) == 2]
    return [
        {"prompt": j.prompt, "chosen": j.answers[choice], "rejected": j.answers[1 - choice], "rater": j.rater}
        for j, choice in pairs
    ]


def _raters(rows: Sequence[Row]) -> list[RaterView]:
    """All raters together, then each of those with the most judgements."""
    counts = Counter(str(r["rater"]) for r in rows if r.get("rater"))
    names = sorted(name for name, _ in counts.most_common(LIMIT)) if len(counts) > 1 else []
    by_name = [_rater(name, [r for r in rows if str(r.get("rater")) == name]) for name in names]
    return [_rater("all judgements", rows), *by_name]


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
