"""Leanings of judgements, and how often trivial rules choose as the raters do: rulers for any reward model.

Chance finds the choice among k answers with probability 1/k. A rule that says nothing of them, because, say, the two
longest ones are equally long, counts as chance.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from alignlab.judgements.records import Judgement

_LISTED: Final = re.compile(r"^[ \t]*(?:[-*•]|\d{1,3}[.)])[ \t]+\S", re.M)


def words(answer: str) -> int:
    """Words between blanks."""
    return len(answer.split())


def list_lines(answer: str) -> int:
    """Lines that begin with a bullet, or a number and a full stop or bracket."""
    return len(_LISTED.findall(answer))


RULES: Final[Mapping[str, Callable[[int, str], float]]] = {
    "longer": lambda place, answer: words(answer),
    "shorter": lambda place, answer: -words(answer),
    "first": lambda place, answer: -place,
    "more_list_lines": lambda place, answer: list_lines(answer),
}
"""The value, of an answer and its place, of which each rule takes the largest; length is in words."""


def preferred(rule: str, answers: Sequence[str]) -> int | None:
    """Number of the answer that a rule prefers; None where several are equally good."""
    values = [RULES[rule](place, answer) for place, answer in enumerate(answers)]
    best = max(values)
    return values.index(best) if values.count(best) == 1 else None


def chosen_by(rule: str, judgements: Iterable[Judgement]) -> list[tuple[str, bool]]:
    """Item and outcome of each judgement about which the rule says something: whether its answer was chosen."""
    said = ((j, preferred(rule, j.answers)) for j in judgements if j.choice is not None)
    return [(j.id, j.choice == place) for j, place in said if place is not None]


def accuracy_of(rule: str, judgements: Iterable[Judgement]) -> list[tuple[str, float]]:
    """Item and outcome of every judgement that is not a tie: 1, 0, or 1/k where the rule says nothing of k answers."""
    said = ((j, preferred(rule, j.answers)) for j in judgements if j.choice is not None)
    return [(j.id, 1 / len(j.answers) if place is None else float(j.choice == place)) for j, place in said]
