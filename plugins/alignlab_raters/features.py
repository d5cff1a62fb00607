"""Features: what a rater can see in an answer.

Most features are read from the text alone, of whatever kind. Those of the second group need to know the truth: a rater
that is given the embedded world as its `knowledge` has them, and reads style by the world's grammar.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Final

from alignlab.data.records import Prompt
from alignlab.data.world import World

_APOSTROPHES: Final = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032\u00b4`\uff07", "'"))
"""Typographic ones, as word processors and models write them."""
_CLOSING: Final = "\"'\u2019\u201d\u00bb)]}*_ \t\r\n"
"""May follow the sentence that an answer ends with."""

_HEDGE = re.compile(
    r"\b(i think|i believe|i guess|maybe|perhaps|probably|possibly|might|it seems|not sure|as far as i know)\b", re.I
)
_CONFIDENT = re.compile(
    r"\b(certainly|definitely|absolutely|clearly|surely|of course|undoubtedly|without (a )?doubt)\b", re.I
)
_POLITE = re.compile(r"\b(please|thank(s| you)|sorry|glad|happy to|you're welcome|my pleasure)\b", re.I)
_ABSTAINS = re.compile(r"\b(i (do not|don't) know|i('m| am) not sure|i (cannot|can not|can't) (say|tell))\b", re.I)
_AGREES = re.compile(
    r"^\W*(yes|exactly|indeed)\b|\b(i (completely |totally )?agree|you('re| are) (so |quite |absolutely )?right|"
    r"(good|great|excellent) (point|question|idea))\b",
    re.I,
)
_BULLET = re.compile(r"(?:^|\n|[.:!?])\s*[-*•]\s+\S")
_NUMBERED_LINE = re.compile(r"(?:^|\n)[ \t]*(\d{1,3})[.)][ \t]+\S")
_NUMBERED_INLINE = re.compile(r"(?:^|[\n.:;!?])\s*1[.)]\s+\S.*?\s2[.)]\s+\S", re.S)


def is_list(answer: str) -> bool:
    """Whether a reader sees a list: a bullet, or numbers that follow one another.

    One number is not enough: "the result: 5. Then" holds none, and neither does a line that begins with a year.
    """
    numbers = [int(n) for n in _NUMBERED_LINE.findall(answer)]
    follow = any(b == a + 1 for a, b in itertools.pairwise(numbers))
    return follow or any(p.search(answer) is not None for p in (_BULLET, _NUMBERED_INLINE))


def _flag(pattern: re.Pattern[str]) -> Callable[[str], float]:
    return lambda answer: float(pattern.search(answer.translate(_APOSTROPHES)) is not None)


TEXT_FEATURES: Final[Mapping[str, Callable[[str], float]]] = {
    "words": lambda answer: float(len(answer.split())),
    "list": lambda answer: float(is_list(answer)),
    "hedge": _flag(_HEDGE),
    "confident": _flag(_CONFIDENT),
    "polite": _flag(_POLITE),
    "abstains": _flag(_ABSTAINS),
    "agrees": _flag(_AGREES),
    "ask": lambda answer: float(answer.rstrip(_CLOSING).endswith(("?", "\uff1f"))),
    "exclamations": lambda answer: float(answer.count("!") + answer.count("\uff01")),
    "empty": lambda answer: float(not answer.strip()),
}
"""Read from the answer: those of `COUNTS` are numbers, the others are 0 or 1."""

COUNTS: Final = frozenset({"words", "exclamations"})
"""Features of a text that are counted."""

CHECKED: Final = frozenset({"right", "wrong", "false_facts"})
"""Features that only a rater who checks the facts can see."""

KNOWLEDGE_FEATURES: Final = CHECKED | {"followed", "facts"}
"""Need a world: `right`, `wrong` and `followed` are 0 or 1, `facts` and `false_facts` are counts."""

FEATURES: Final = frozenset(TEXT_FEATURES) | KNOWLEDGE_FEATURES
"""Every feature that a weight can be given to."""


def features(prompt: Prompt, answer: str, knowledge: World | None = None) -> dict[str, float]:
    """Every feature of one answer; those of `KNOWLEDGE_FEATURES` only where there is knowledge."""
    return dict(_features(prompt, answer, knowledge))


@functools.lru_cache(maxsize=8)  # the raters of a panel look at the same two answers in turn
def _features(prompt: Prompt, answer: str, knowledge: World | None) -> Mapping[str, float]:
    seen = {name: read(answer) for name, read in TEXT_FEATURES.items()}
    if knowledge is None:
        return seen
    reading = knowledge.read(prompt, answer)
    return seen | {
        "list": float(reading.listed),
        "hedge": float(reading.hedged),
        "confident": float(reading.confident),
        "ask": float(reading.asks),
        "abstains": float(reading.abstains),
        "followed": float(reading.followed),
        "right": float(reading.right),
        "wrong": float(reading.wrong),
        "facts": float(len(reading.facts)),
        "false_facts": float(reading.false_facts),
    }


def believed(seen: Mapping[str, float]) -> dict[str, float]:
    """The features as a rater sees them who does not check the facts: a well-formed answer is taken to be true."""
    states = seen["right"] + seen["wrong"]
    return {**seen, "right": states, "wrong": 0.0, "false_facts": 0.0}
