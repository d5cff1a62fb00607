"""The same prompts answered by each model, side by side, with the differences from the model that it started from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from alignlab.report.run import ModelView

Op = Literal["same", "added", "dropped"]
Words = tuple[tuple[Op, str], ...]
Move = Literal["better", "worse", ""]

PER_KIND = 12
LIMIT = 72
"""Prompts that are shown, of each kind and in all; the artifacts have all of them."""
LONGEST = 3000
"""Characters of an answer that are shown."""
COMPARED = 200
"""Words of an answer that is compared; a base model that repeats itself would take minutes."""
TONES = ("bad", "", "good")
"""Tones of a verdict, the worst first."""
ALIKE = 0.25
"""Answers that have less in common are not compared: marking every word would tell nothing."""


@dataclass(frozen=True)
class Answer:
    """One model's answer.

    Args:
        text: word by word; "added" and "dropped" are relative to the answer of the model that this one started from.
        verdict: of the evaluation, in a few words; empty where it has none.
        tone: of the verdict: "good", "bad" or "".
        truth: the right answer, where it is known and this one may not be it.
        changed: whether it differs from that model's answer.
        move: whether its verdict is better or worse than that answer's; "" where it is neither, or one has no verdict.
    """

    text: Words
    verdict: str = ""
    tone: str = ""
    truth: str = ""
    changed: bool = False
    move: Move = ""

    @property
    def empty(self) -> bool:
        """Whether the answer is empty."""
        return not any(words.strip() for op, words in self.text if op != "dropped")


@dataclass(frozen=True)
class Asked:
    """One prompt and its answers, by model; None where a model was not asked."""

    prompt: str
    kind: str
    answers: Mapping[str, Answer | None]

    @property
    def changed(self) -> bool:
        """Whether any model's answer differs from that of the model that it started from."""
        return any(a is not None and a.changed for a in self.answers.values())

    @property
    def verdicts(self) -> list[str]:
        """Tones of its verdicts, "good" and "bad", and whether training made any answer "better" or "worse"."""
        found = {word for a in self.answers.values() if a is not None for word in (a.tone, a.move)}
        return sorted(found - {""})


def side_by_side(models: Sequence[ModelView]) -> list[Asked]:
    """Join the models' samples by prompt: of each kind, prompts that are evenly spread over all that there are."""
    rows = {m.name: _first_by_prompt(m.samples) for m in models}
    keys = dict.fromkeys(key for found in rows.values() for key in found)
    asked = [key for kind in dict.fromkeys(k for _, k in keys) for key in _spread([x for x in keys if x[1] == kind])]
    parents = {m.name: m.stage.parents.get("policy", "") for m in models}
    return [_asked(key, rows, parents) for key in asked[:LIMIT]]


def _first_by_prompt(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in samples:
        found.setdefault((str(row["prompt"]), str(row.get("kind", ""))), row)
    return found


def _spread(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    count = min(PER_KIND, len(keys))
    return [keys[i * len(keys) // count] for i in range(count)]


def _asked(
    key: tuple[str, str], rows: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]], parents: Mapping[str, str]
) -> Asked:
    answers: dict[str, Answer | None] = {}
    for model, found in rows.items():
        before = rows.get(parents[model], {}).get(key)
        answers[model] = _answer(found[key], before) if key in found else None
    return Asked(*key, answers)


def _answer(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> Answer:
    text = str(row["answer"])[:LONGEST]
    old = None if before is None else str(before["answer"])[:LONGEST]
    words: Words = (("same", text),) if old is None else difference(old, text)
    changed = old is not None and old.split() != text.split()
    return Answer(words, *_verdict(row), changed, "" if before is None else _move(_verdict(before), _verdict(row)))


def _move(old: tuple[str, str, str], new: tuple[str, str, str]) -> Move:
    """Direction in which the tone of a verdict changed."""
    if not old[0] or not new[0]:
        return ""
    step = TONES.index(new[1]) - TONES.index(old[1])
    return "better" if step > 0 else "worse" if step < 0 else ""


def difference(old: str, new: str) -> Words:
    """The new text, word by word, with what was added to and dropped from the old one."""
    a, b = re.findall(r"\s*\S+", old), re.findall(r"\s*\S+\s*$|\s*\S+", new)
    if max(len(a), len(b)) > COMPARED:
        return (("same", new),)
    matcher = SequenceMatcher(None, [w.strip() for w in a], [w.strip() for w in b], autojunk=False)
    if matcher.ratio() < ALIKE:
        return (("same", new),)
    found: list[tuple[Op, str]] = []
    for name, a1, a2, b1, b2 in matcher.get_opcodes():
        if name != "equal" and a2 > a1:
            found.append(("dropped", "".join(a[a1:a2])))
        if b2 > b1:
            found.append(("same" if name == "equal" else "added", "".join(b[b1:b2])))
    return tuple(found)


def _verdict(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """The evaluation's verdict and its tone, and the truth next to an answer that is not good.

    An answer that did not finish is shown without the truth.
    """
    if row.get("finished") is False:
        return str(row.get("verdict") or "does not stop"), _tone(row.get("tone") or "bad"), ""
    verdict, tone = str(row.get("verdict") or ""), _tone(row.get("tone"))
    truth = "" if tone == "good" or not verdict else str(row.get("truth") or "")
    return verdict, tone, truth


def _tone(value: Any) -> str:
    """A known tone; what else an evaluation wrote counts as none."""
    return str(value) if value in TONES else ""
