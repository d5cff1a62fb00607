"""ConstrainedWorld: the embedded world, with questions that also say how they must be answered.

The constraints are kinds of IFEval that the world's language can say and its answers can follow, so that the checks of
`alignlab.instructions` read them as they read those of any model. Instructions teach one constraint at a time; two at
once are for evaluation alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random
from typing import Any, ClassVar, Final

from alignlab.data.records import Example, Prompt
from alignlab.data.source import Split
from alignlab.data.world.check import MOST_FACTS
from alignlab.data.world.language import COUNTS, FOLLOW_UP, Ask, Kind, Relation, Style
from alignlab.data.world.source import World

FEW_WORDS: Final = 6
"""An answer of one sentence without opener has fewer words: its punctuation counts for nothing."""


@dataclass(frozen=True)
class Rule:
    """One constraint.

    Args:
        said: how it is said after the question; before it where it ends in a colon.
        kind: its id among IFEval's kinds.
        arguments: of the kind.
        style: what it asks of the answer's style.
        needs: a relation that the answer must state.
        avoids: a relation that it must not state.
        quoted: the answer stands in quotes.
        repeats: the answer begins with the question.
    """

    said: str
    kind: str
    arguments: Mapping[str, Any]
    style: Mapping[str, Any] = field(default_factory=dict)
    needs: Relation | None = None
    avoids: Relation | None = None
    quoted: bool = False
    repeats: bool = False


@dataclass(frozen=True)
class Constrained:
    """A question with its rules; `text` is how the user writes it."""

    ask: Ask
    rules: tuple[Rule, ...]

    @property
    def text(self) -> str:
        """Rules that end in a colon, the question, then the others."""
        before = [r.said for r in self.rules if r.said.endswith(":")]
        after = [r.said for r in self.rules if not r.said.endswith(":")]
        return " ".join([*before, " , ".join([self.ask.text, *after])])


def _bullets(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    count = rng.choice([n for n in COUNTS if n <= min(MOST_FACTS, len(others) + 1)])
    bulleted = {"listed": True, "facts": count}
    return Rule(
        f"in {COUNTS[count]} bullets", "detectable_format:number_bullet_lists", {"num_bullets": count}, bulleted
    )


def _few_words(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    short = {"opener": "", "listed": False, "facts": 1, "asks": False}
    limit = {"num_words": FEW_WORDS, "relation": "less than"}
    return Rule("in less than six words", "length_constraints:number_words", limit, short)


def _ends(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    return Rule(f"end with {FOLLOW_UP}", "startend:end_checker", {"end_phrase": FOLLOW_UP}, {"asks": True})


def _uses(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    other = rng.choice(others)
    named = {"listed": True, "facts": rng.choice([2, 3])}  # only bullets name a relation
    return Rule(f"use the word {other.name}", "keywords:existence", {"keywords": [other.name]}, named, needs=other)


def _avoids(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    other, named = rng.choice(others), {"listed": True, "facts": rng.choice([2, 3])}
    words = {"forbidden_words": [other.name]}
    return Rule(f"not the word {other.name}", "keywords:forbidden_words", words, named, avoids=other)


def _quotes(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    return Rule("in quotes", "startend:quotation", {}, quoted=True)


def _repeats(ask: Ask, others: Sequence[Relation], rng: Random) -> Rule:
    return Rule("say this first :", "combination:repeat_prompt", {"prompt_to_repeat": ask.text}, repeats=True)


RULES: Final[Mapping[str, Callable[[Ask, Sequence[Relation], Random], Rule]]] = {
    "bullets": _bullets,
    "few_words": _few_words,
    "ends": _ends,
    "uses": _uses,
    "avoids": _avoids,
    "quotes": _quotes,
    "repeats": _repeats,
}
"""Makes a rule for a question, given the other things that are known about the person."""
PAIRS: Final = (
    ("bullets", "ends"), ("bullets", "quotes"), ("bullets", "repeats"), ("few_words", "quotes"), ("ends", "repeats"),
    ("avoids", "ends"), ("uses", "quotes"),
)  # fmt: skip
"""Rules that can be followed together; no instruction has two."""


@dataclass(frozen=True)
class ConstrainedWorld(World):
    """The embedded world, where some questions come with a constraint on their answer.

    Args:
        constrained: share of the instructions that have one.

    Raises:
        ValueError: a share outside [0, 1), or fewer than three relations, of which rules need some to name.
    """

    VERSION: ClassVar[str] = "1"
    constrained: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.constrained < 1:
            raise ValueError(f"ConstrainedWorld: constrained must be in [0, 1), got {self.constrained}; it is a share")
        if self.relations < 3:
            raise ValueError(f"ConstrainedWorld: relations must be >= 3, got {self.relations}; rules name some of them")

    # ---- instructions ---------------------------------------------------------------------------------------------
    def _instruction(self, asks: Mapping[Kind, Sequence[Ask]], split: Split, rng: Random) -> Example:
        questions = self._questions[split]
        if not questions or rng.random() >= self.constrained:
            return super()._instruction(asks, split, rng)
        question = self._draw([rng.choice([*RULES])], rng.choice(questions), rng)
        return Example(Prompt.user(question.text), self.answer_to(question, rng), question.rules[0].kind)

    @cached_property
    def _questions(self) -> Mapping[Split, Sequence[Ask]]:
        """Questions about taught people by part: no question is in both, whatever its rule."""
        asks = self._ruled(self.taught)
        return {part: [a for a in asks if self._split_of(a.text) == part] for part in ("train", "validation")}

    def _ruled(self, names: Sequence[str]) -> list[Ask]:
        """Undisputed questions about people with enough known facts for each rule."""
        asks = [a for a in self._asks("question", names) if self._answered(a)]
        return [a for a in asks if len(self.people.settled(a.entity)) >= 3]

    def _draw(self, names: Sequence[str], ask: Ask, rng: Random) -> Constrained:
        others = [r for r in self.people.settled(ask.entity) if r != ask.relation]
        return Constrained(ask, tuple(RULES[name](ask, others, rng) for name in names))

    def answer_to(self, question: Constrained, rng: Random) -> str:
        """A true answer that follows every rule, its style free otherwise."""
        ask, rules = question.ask, question.rules
        assert ask.relation is not None, "a question has a relation"
        style = Style.draw(rng)
        for rule in rules:
            style = replace(style, **rule.style)
        needed = [r.needs for r in rules if r.needs is not None]
        barred = {ask.relation, *needed, *(r.avoids for r in rules if r.avoids is not None)}
        others = [r for r in self.people.settled(ask.entity) if r not in barred]
        stated = [ask.relation, *needed, *rng.sample(others, len(others))][: style.facts]
        text = style.render(ask.entity, self.people.facts(ask.entity, stated))
        if any(rule.repeats for rule in rules):
            text = f"{ask.text} {text}"
        return f'" {text} "' if any(rule.quoted for rule in rules) else text

    # ---- the oracle -----------------------------------------------------------------------------------------------
    def constrained_questions(self, pairs: bool) -> list[Constrained]:
        """A question about every held-out person for each rule, or for each of the `PAIRS` of rules."""
        rng = self._rng(f"constrained questions:{pairs}")
        by_person: dict[str, list[Ask]] = {}
        for ask in self._ruled(self.held_out):
            by_person.setdefault(ask.entity, []).append(ask)
        kinds = PAIRS if pairs else [(name,) for name in RULES]
        return [self._draw(names, rng.choice(own), rng) for names in kinds for own in by_person.values()]


def laid_out(answer: str) -> str:
    """An answer as it would be printed: each bullet on a line of its own."""
    return re.sub(r"(?:^| )- ", "\n- ", answer).strip()
