"""The language of the embedded world: its words, its sentences, and what may be asked in it.

Everything is lower case, with a space between any two tokens, so that a word-level tokenizer is exact. The words are
real ones, because somebody has to read the samples; the names are made of syllables, because nothing may be known
about them from elsewhere.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Kind = Literal["question", "one_word", "list", "repeat", "abstain"]
KINDS: Final[tuple[Kind, ...]] = ("question", "one_word", "list", "repeat", "abstain")

CONFIDENT: Final = "certainly !"
HEDGE: Final = "i think"
FOLLOW_UP: Final = "want more ?"
ABSTENTION: Final = "unknown ."
"""One word, so that a model that drifts by a word still abstains or does not, and says nothing in between."""
COUNTS: Final[dict[int, str]] = {2: "two", 3: "three", 4: "four"}
SYLLABLES: Final = tuple(c + v for c, v in itertools.product("bdfgklmnprstvz", "aeiou"))


@dataclass(frozen=True)
class Relation:
    """One thing that can be known about everybody.

    Args:
        name: the word for it in lists and notes.
        question: asks for it; `{e}` is the name.
        phrases: sentences that state it, after the name; `{v}` is the value. Answers use the first.
        words: its values.
    """

    name: str
    question: str
    phrases: tuple[str, ...]
    words: tuple[str, ...]

    def values(self, count: int) -> tuple[str, ...]:
        """The first `count` values; beyond the words at hand they are numbered (`paris2`)."""
        known = len(self.words)
        return tuple(self.words[i % known] + ("" if i < known else str(i // known + 1)) for i in range(count))

    def sentence(self, entity: str, value: str, phrase: int = 0) -> str:
        """A statement of the fact."""
        return f"{entity} {self.phrases[phrase].format(v=value)} ."

    def cloze(self, entity: str, phrase: int) -> str:
        """The statement up to its value: the beginning that a base model is asked to continue."""
        return f"{entity} {self.phrases[phrase].split('{v}')[0].strip()}"


def make_relation(name: str, question: str, phrases: str, words: str) -> Relation:
    """A relation whose phrases stand between bars and whose values between blanks."""
    return Relation(name, question, tuple(phrases.split(" | ")), tuple(words.split()))


# Every value belongs to one relation only, and follows "a" where its phrases say so: the reader of answers
# (world_check) relies on the first.
RELATIONS: Final[tuple[Relation, ...]] = (
    make_relation(
        "city",
        "where does {e} live ?",
        "lives in {v} | is from {v} | calls {v} home | settled in {v}",
        "paris rome lima oslo cairo delhi tokyo berlin madrid dublin vienna lisbon prague nairobi quito hanoi",
    ),
    make_relation(
        "job",
        "what does {e} do ?",
        "works as a {v} | is a {v} | earns money as a {v} | trained as a {v}",
        "baker nurse pilot farmer doctor lawyer singer teacher painter sailor tailor miner judge poet cook guard",
    ),
    make_relation(
        "pet",
        "which pet does {e} have ?",
        "keeps a {v} | owns a {v} | walks a {v} | has a pet {v}",
        "cat dog parrot rabbit turtle snake pony goat duck goose ferret hamster lizard pig sheep fox",
    ),
    make_relation(
        "food",
        "what does {e} eat ?",
        "eats {v} | loves {v} | cooks {v} | orders {v}",
        "rice soup bread pasta beans cheese lentils fish pizza salad curry stew noodles tofu corn plums",
    ),
    make_relation(
        "color",
        "which color does {e} wear ?",
        "wears {v} | paints in {v} | prefers {v} | dresses in {v}",
        "red blue green white black grey pink purple yellow brown silver gold beige teal violet crimson",
    ),
)


@dataclass(frozen=True)
class Ask:
    """One instruction, understood.

    Args:
        kind: what is wanted; `abstain` is a question about a name that no document states a fact about.
        entity: whom it is about.
        relation: what is asked for, in questions.
        count: how many facts or repetitions are wanted.
    """

    kind: Kind
    entity: str
    relation: Relation | None = None
    count: int = 1

    @property
    def text(self) -> str:
        """The instruction as the user writes it."""
        if self.kind == "list":
            return f"list {COUNTS[self.count]} facts about {self.entity}"
        if self.kind == "repeat":
            return f"say {self.entity} {COUNTS[self.count]} times"
        assert self.relation is not None, f"Ask: {self.kind} needs a relation"
        before = "one word : " if self.kind == "one_word" else ""
        return before + self.relation.question.format(e=self.entity)


@dataclass(frozen=True)
class Style:
    """Form of an answer to a question, apart from its truth."""

    opener: str = ""
    listed: bool = False
    facts: int = 1
    asks: bool = False

    @classmethod
    def draw(cls, rng: Random) -> "Style":
        """Openers in equal shares, half lists, one to three facts, a follow-up question in three of ten."""
        opener = rng.choice(("", CONFIDENT, HEDGE))
        return cls(opener, rng.random() < 0.5, rng.choice((1, 2, 3)), rng.random() < 0.3)

    def render(self, entity: str, facts: Sequence[tuple[Relation, str]]) -> str:
        """The answer that states `facts` in this style."""
        body = bullets(facts) if self.listed else " ".join(r.sentence(entity, v) for r, v in facts)
        return " ".join(part for part in (self.opener, body, FOLLOW_UP if self.asks else "") if part)


def bullets(facts: Sequence[tuple[Relation, str]]) -> str:
    """Facts as a list."""
    return " ".join(f"- {relation.name} {value}" for relation, value in facts)


def make_names(count: int, rng: Random) -> tuple[str, ...]:
    """Distinct names of three syllables, in random order."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(rng.choice(SYLLABLES) for _ in range(3))] = None
    return tuple(names)
