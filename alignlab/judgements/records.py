"""Judgements as JSON lines, one of a person or of a simulated rater on each.

A line holds `id` (of what is judged: judgements of the same id are of the same answers to one prompt), `prompt` (a
text, or a list of messages), `answers` (two or more different texts, in the order in which this rater saw them),
`rater`, `choice` (number of the preferred answer from 0, or null) and `tie` (whether neither was preferred; false where
it is missing). It may hold `ranking` (numbers of all answers, the best first), `time` (seconds), `split` and `facts` of
the prompt, and further fields, which are left alone. A choice of null without a tie or a ranking is a judgement that
was not made.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.data.conversations import text
from alignlab.errors import DataError

JUDGEMENTS = "judgements.jsonl"
FIELDS = ("id", "prompt", "answers", "rater", "choice")
"""Those that every line has."""


@dataclass(frozen=True)
class Judgement:
    """One rater's answer to which of some answers is the best.

    Args:
        id: of what is judged.
        prompt: a text, or a list of messages.
        answers: two or more different texts, in the order in which this rater saw them.
        rater: who judged.
        choice: number of the preferred answer; None for a tie, and where no judgement was made.
        tie: whether neither was preferred.
        ranking: numbers of all answers, the best first, where they were ranked.
        time: that it took, seconds.
        split: part that the item belongs to, where it is known.
        facts: of the prompt.
        source: file and line, for messages.
    """

    id: str
    prompt: str | Sequence[Mapping[str, Any]]
    answers: tuple[str, ...]
    rater: str
    choice: int | None
    tie: bool = False
    ranking: tuple[int, ...] | None = None
    time: float | None = None
    split: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    source: str = field(default="", compare=False)

    @property
    def made(self) -> bool:
        """Whether the rater answered."""
        return self.choice is not None or self.tie

    @property
    def chosen(self) -> str | None:
        """The preferred answer; None where none was preferred."""
        return None if self.choice is None else self.answers[self.choice]

    def to_json(self) -> dict[str, Any]:
        """The line of the file."""
        optional = {
            "ranking": None if self.ranking is None else list(self.ranking),
            "time": self.time,
            "split": self.split,
            "facts": dict(self.facts) or None,
        }
        return {
            "id": self.id,
            "prompt": self.prompt if isinstance(self.prompt, str) else [dict(m) for m in self.prompt],
            "answers": list(self.answers),
            "rater": self.rater,
            "choice": self.choice,
            "tie": self.tie,
            **{name: value for name, value in optional.items() if value is not None},
        }


# ---- reading ---------------------------------------------------------------------------------------------------------
def read(path: Path | str) -> list[Judgement]:
    """Every judgement of a file, or of a stage's folder.

    Raises:
        DataError: there is no such file, it holds no judgement, or a line is none; the message names file and line.
    """
    file = file_of(path)
    if not file.is_file():
        raise DataError(f"no such file: {file}; judgements are JSON lines, as stage=label writes them ({JUDGEMENTS})")
    found = check_items(_judgements(file))
    if not found:
        raise DataError(f"{file} holds no judgement")
    return found


def file_of(path: Path | str) -> Path:
    """The file of a path, which may be a folder that holds one."""
    file = Path(path).expanduser()
    return file / JUDGEMENTS if file.is_dir() else file


def _judgements(file: Path) -> Iterator[Judgement]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    yield parse(json.loads(line), f"{file}:{number}")
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{file}:{number}: {error}") from error


def parse(line: object, source: str = "") -> Judgement:
    """The judgement of one line.

    Raises:
        ValueError: it is none; the message names field and rule.
    """
    if not isinstance(line, dict):
        raise ValueError(f"a judgement is a JSON object, found {type(line).__name__}")
    if missing := [name for name in FIELDS if name not in line]:
        raise ValueError(f"a judgement needs {', '.join(FIELDS)}; missing: {', '.join(missing)}")
    answers = _answers(line["answers"])
    ranking = _ranking(line.get("ranking"), len(answers))
    tie = line.get("tie", False)
    if not isinstance(tie, bool):
        raise ValueError(f"tie must be true or false, found {tie!r:.40}")
    found = Judgement(
        _name("id", line["id"]),
        _prompt(line["prompt"]),
        answers,
        _name("rater", line["rater"]),
        _choice(line["choice"], len(answers), tie, ranking),
        tie,
        ranking,
        _time(line.get("time")),
        _split(line.get("split")),
        _facts(line.get("facts")),
        source,
    )
    text(json.dumps(found.to_json(), ensure_ascii=False))
    return found


def _name(field_name: str, value: object) -> str:
    known = isinstance(value, str | int) and not isinstance(value, bool)
    if not known or not str(value).strip():
        raise ValueError(f"{field_name} must be a text (or a whole number), found {value!r:.40}")
    return str(value)


def _prompt(value: object) -> str | list[dict[str, Any]]:
    if isinstance(value, list) and value and all(isinstance(m, dict) and "content" in m for m in value):
        return value
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"prompt must be a text or a list of messages with role and content, found {value!r:.40}")


def _answers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(a, str) for a in value) or len(value) < 2:
        raise ValueError(f"answers must be a list of two or more texts, found {value!r:.40}")
    if len(set(value)) < len(value):
        raise ValueError(f"answers must differ, found {len(value)} of which {len(set(value))} are different")
    return tuple(value)


def _ranking(value: object, count: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    whole = isinstance(value, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    if not isinstance(value, list) or not whole or sorted(value) != list(range(count)):
        raise ValueError(f"ranking must hold each of 0 to {count - 1} once, the best first, found {value!r:.60}")
    return tuple(value)


def _choice(value: object, count: int, tie: bool, ranking: tuple[int, ...] | None) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count):
        raise ValueError(f"choice must be null or the number of an answer, 0 to {count - 1}, found {value!r:.40}")
    if tie and (value is not None or ranking is not None):
        raise ValueError("choice must be null, and ranking missing, where tie is true")
    if ranking is None or value == ranking[0]:
        return value
    if value is not None:
        raise ValueError(f"choice is {value}, but the ranking's best is {ranking[0]}")
    return ranking[0]


def _time(value: object) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared before it is a float: a whole number may be too large for one.
    if not isinstance(value, int | float) or not number or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"time must be a number of seconds >= 0, found {value!r:.40}")
    return float(value)


def _split(value: object) -> str | None:
    if value not in (None, "train", "validation"):
        raise ValueError(f"split must be train or validation, found {value!r:.40}")
    return None if value is None else str(value)


def _facts(value: object) -> dict[str, str]:
    facts = {} if value is None else value
    if not isinstance(facts, dict) or not all(isinstance(v, str) for v in facts.values()):
        raise ValueError(f"facts must be an object of texts, found {value!r:.40}")
    return {str(k): v for k, v in facts.items()}


# ---- what is judged --------------------------------------------------------------------------------------------------
def check_items(judgements: Iterable[Judgement]) -> list[Judgement]:
    """The judgements, whose prompt, answers and split are the same wherever the id is; answers may be in any order.

    Raises:
        DataError: they are not; the message names both lines.
    """
    first: dict[str, Judgement] = {}
    found = list(judgements)
    for judgement in found:
        known = first.setdefault(judgement.id, judgement)
        if differ := _different(known, judgement):
            raise DataError(
                f"{judgement.source}: {differ} of id {judgement.id!r:.40} differ from those of {known.source}; "
                f"judgements of the same id are of the same answers to the same prompt, in one split"
            )
    return found


def _different(one: Judgement, other: Judgement) -> str | None:
    """The part of an item that two judgements do not have in common."""
    if set(one.answers) != set(other.answers):
        return "the answers"
    if _messages(one.prompt) != _messages(other.prompt):
        return "the messages of the prompt"
    return "the splits" if one.split != other.split else None


def _messages(prompt: str | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def by_item(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """Those that were made, by id, in the order of the file."""
    found: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.made:
            found.setdefault(judgement.id, []).append(judgement)
    return found
