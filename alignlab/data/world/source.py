"""The embedded world: documents, instructions and questions about people who do not exist.

Because the world is made here, the truth of every statement in it is known: what a model *knows* (it was in the
documents), what it was *taught to do* (instructions about one half of the people) and what it does with that on the
other half can be told apart. Some people are written about more than others, and about some facts the documents
disagree, so that nobody can know them; a model that always knows has nothing to be wrong about.

Everything is a pure function of the arguments. The people fall into three groups:

- taught: instructions, and the prompts that raters judge, are about them. Instructions answer only with what is
  undisputed: to teach answers that the documents did not give is to teach guessing;
- held out: evaluation only; no instruction and no preference prompt ever names them;
- gossiped: documents name them and state no fact about them; one part teaches to abstain, the other measures it.

Left out on purpose: facts that change, facts that follow from others, and misspelt questions.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import ClassVar, Literal

from alignlab.data.records import Document, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.world.check import Reading, read_answer
from alignlab.data.world.language import ABSTENTION, COUNTS, KINDS, RELATIONS, Ask, Kind, Style, bullets
from alignlab.data.world.people import People, shuffled
from alignlab.errors import DataError

BIOGRAPHIES, NOTES, QUESTION_SHEETS = 0.60, 0.15, 0.17
"""Shares of the kinds of entries in documents; the rest is gossip."""
VALIDATION_PROMPTS = 0.1
"""Share of the taught prompts that is for validation."""
VALIDATION_RECORDS = 0.05
"""Documents and instructions for validation, over those for training."""


@dataclass(frozen=True)
class World(DataSource):
    """Documents, instructions and prompts about made-up people, and the truth about them.

    Args:
        entities: people about whom facts are stated.
        unknown: people who are only gossiped about.
        relations: how many things are true of each person; 1 to 5.
        values: different values of each relation.
        training_documents: how many (about 34 tokens each).
        training_instructions: how many.
        zipf: exponent of how often people are written about; the person of rank r has weight r^-zipf. 0 is uniform.
        disputed: share of the facts about which every other document tells the same falsehood.
        sft_share: share of the people (and of the gossiped names) that instructions may be about.
        abstention: whether instructions teach to say "unknown ." about gossiped names.
        styles: whether answers to questions vary in style; if not, they state the one fact.
        about: whom everything is about: null, everybody; "residents", all but the newcomers, who are then named in
            questions without answers at most; "newcomers", a quarter of the people. Names and truth are the same.
        seed: of names, facts and draws.

    Source: after "Physics of language models", part 3.1 (Allen-Zhu and Li 2023, arXiv:2309.14316): biographies, and
        questions about held-out people.
    """

    VERSION: ClassVar[str] = "2"
    IDENTITY_IF_SET: ClassVar[frozenset[str]] = frozenset({"about"})
    entities: int = 64
    unknown: int = 20
    relations: int = 5
    values: int = 16
    training_documents: int = 16000
    training_instructions: int = 12000
    zipf: float = 0.5
    disputed: float = 0.3
    sft_share: float = 0.5
    abstention: bool = True
    styles: bool = True
    about: Literal["residents", "newcomers"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"entities": 4, "unknown": 2, "values": 2, "training_documents": 1, "training_instructions": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"World: {name} must be >= {lowest}, got {getattr(self, name)}")
        if not 1 <= self.relations <= len(RELATIONS):
            raise ValueError(f"World: relations must be 1 to {len(RELATIONS)}, got {self.relations}")
        if self.zipf < 0:
            raise ValueError(f"World: zipf must be >= 0, got {self.zipf}; 0 writes about everybody equally often")
        if not 0 <= self.disputed < 1:
            raise ValueError(f"World: disputed must be in [0, 1), got {self.disputed}; it is a share of the facts")
        if not 0 < self.sft_share < 1:
            raise ValueError(f"World: sft_share must be in (0, 1), got {self.sft_share}; evaluation needs the rest")
        if self.about and not all(self.people.newcomers & set(g) for g in (self.people.taught, self.people.held_out)):
            raise ValueError(f"World: about={self.about} needs newcomers; set entities to >= 8, got {self.entities}")

    @cached_property
    def people(self) -> People:
        """Everybody in the world, and the truth about them."""
        sizes = (self.entities, self.unknown, self.relations, self.values)
        return People(*sizes, taught_share=self.sft_share, disputed=self.disputed, seed=self.seed)

    def _meant(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some people whom this world's texts are about."""
        if self.about is None:
            return tuple(names)
        return tuple(n for n in names if (n in self.people.newcomers) == (self.about == "newcomers"))

    @property
    def taught(self) -> tuple[str, ...]:
        """People whom instructions and preference prompts name."""
        return self._meant(self.people.taught)

    @property
    def held_out(self) -> tuple[str, ...]:
        """People whom evaluation asks about."""
        return self._meant(self.people.held_out)

    def _rng(self, purpose: str) -> Random:
        """Random numbers of its own for each purpose, so that more of one thing leaves the others as they are."""
        return Random(f"world:{self.seed}:{purpose}")

    def _counts(self, purpose: str, training: int) -> list[tuple[Split, int, Random]]:
        validation = max(1, round(training * VALIDATION_RECORDS))
        return [("train", training, self._rng(purpose)), ("validation", validation, self._rng(f"{purpose}:validation"))]

    # ---- documents ------------------------------------------------------------------------------------------------
    def documents(self, split: Split) -> Sequence[Document]:
        """Biographies, notes, question sheets without answers, and gossip."""
        return self._documents[split]

    @cached_property
    def _documents(self) -> Mapping[Split, tuple[Document, ...]]:
        return {
            split: tuple(self._document(rng) for _ in range(count))
            for split, count, rng in self._counts("documents", self.training_documents)
        }

    def _document(self, rng: Random) -> Document:
        """One or two entries about somebody, a line each.

        Two, so that a name is met at any place and is looked up there: a model that has only seen it at the start of a
        document cannot answer about a name in the middle of a question.
        """
        someone = rng.choices(self._subjects, cum_weights=self._weights)[0]
        return Document("\n".join(self._entry(someone, rng) for _ in range(rng.choice((1, 2)))))

    def _entry(self, someone: str, rng: Random) -> str:
        people, kind = self.people, rng.random()
        told = people.hearsay(someone, rng)
        if kind < BIOGRAPHIES:
            return " ".join(r.sentence(someone, v, rng.randrange(len(r.phrases))) for r, v in told)
        if kind < BIOGRAPHIES + NOTES:
            return f"notes on {someone} : {bullets(told[: rng.randint(2, 4)])}"
        if kind < BIOGRAPHIES + NOTES + QUESTION_SHEETS:
            asked = [(rng.choice(people.all_relations), rng.choice(people.names)) for _ in range(rng.randint(3, 5))]
            return " ".join(r.question.format(e=e) for r, e in asked)
        name = rng.choice(people.gossiped)
        return f"{name} met {someone} . nobody knows more about {name} ."

    @cached_property
    def _subjects(self) -> tuple[str, ...]:
        return self._meant(self.people.with_facts)

    @cached_property
    def _weights(self) -> list[float]:
        rank = {name: number for number, name in enumerate(self.people.with_facts)}
        return list(itertools.accumulate((rank[name] + 1) ** -self.zipf for name in self._subjects))

    # ---- instructions ---------------------------------------------------------------------------------------------
    def instructions(self, split: Split) -> Sequence[Example]:
        """Answered instructions of all kinds in equal shares; no prompt is in both splits."""
        return self._instructions[split]

    @cached_property
    def _instructions(self) -> Mapping[Split, tuple[Example, ...]]:
        asks = self._taught_asks
        return {
            split: tuple(self._instruction(asks, split, rng) for _ in range(count))
            for split, count, rng in self._counts("instructions", self.training_instructions)
        }

    @cached_property
    def _taught_asks(self) -> Mapping[Kind, Sequence[Ask]]:
        """Everything that instructions ask, by kind: undisputed facts only."""
        people = self.people
        # To repeat a word one need not know anything about it; any word will do, so that one learns to repeat.
        words = (*self.taught, *people.taught_gossiped, *people.relation_of)
        names = {"abstain": people.taught_gossiped, "repeat": words}
        asks = {k: self._asks(k, names.get(k, self.taught)) for k in KINDS if self.abstention or k != "abstain"}
        return {k: [a for a in asked if self._answered(a)] for k, asked in asks.items()}

    def _answered(self, ask: Ask) -> bool:
        """Whether what the instruction asks for is undisputed."""
        if ask.kind in ("repeat", "abstain"):
            return True
        settled = self.people.settled(ask.entity)
        return len(settled) >= ask.count if ask.kind == "list" else ask.relation in settled

    def _instruction(self, asks: Mapping[Kind, Sequence[Ask]], split: Split, rng: Random) -> Example:
        while True:
            kind = rng.choice([k for k in asks if asks[k]])
            ask = rng.choice(asks[kind])
            if self._split_of(ask.text) == split:
                return Example(Prompt.user(ask.text), self._answer(ask, rng), kind)

    def _asks(self, kind: Kind, names: Sequence[str]) -> list[Ask]:
        """Everything of one kind that can be asked about some names."""
        if kind in ("list", "repeat"):
            counts = [k for k in COUNTS if kind == "repeat" or k <= self.relations]
            return [Ask(kind, e, count=k) for e in names for k in counts]
        return [Ask(kind, e, r) for e in names for r in self.people.all_relations]

    def _split_of(self, prompt: str) -> Split:
        """By a hash of the prompt, so that instructions and preferences agree on it."""
        digest = hashlib.sha256(f"{self.seed}:{prompt}".encode()).digest()
        return "validation" if digest[0] / 256 < VALIDATION_PROMPTS else "train"

    def _answer(self, ask: Ask, rng: Random) -> str:
        """The answer that instructions teach: always the truth."""
        if ask.kind == "abstain":
            return ABSTENTION
        if ask.kind == "repeat":
            return " ".join([ask.entity] * ask.count)
        settled = shuffled(self.people.settled(ask.entity), rng)
        if ask.kind == "list":
            return bullets(self.people.facts(ask.entity, settled[: ask.count]))
        assert ask.relation is not None, f"Ask: {ask.kind} needs a relation"
        if ask.kind == "one_word":
            return self.people.truth[ask.entity, ask.relation.name]
        style = Style.draw(rng) if self.styles else Style()
        more = [r for r in settled if r != ask.relation][: style.facts - 1]
        return style.render(ask.entity, self.people.facts(ask.entity, [ask.relation, *more]))

    # ---- prompts --------------------------------------------------------------------------------------------------
    def prompts(self, split: Split) -> Sequence[Prompt]:
        """The prompts whose answers raters judge.

        Every question about taught people and gossiped names, known or not, and for each person one instruction of each
        other kind, so that these are not forgotten.
        """
        rng, people = self._rng("prompts"), self.people
        asks = [*self._asks("question", self.taught), *self._asks("abstain", people.taught_gossiped)]
        others: tuple[Kind, ...] = ("one_word", "list", "repeat")
        asks += [rng.choice(self._asks(kind, [entity])) for kind in others for entity in self.taught]
        return [Prompt.user(a.text) for a in shuffled(asks, rng) if self._split_of(a.text) == split]

    def evaluation_asks(self) -> list[Ask]:
        """Everything that evaluation asks: about held-out people and held-out gossiped names."""
        known = [a for k in KINDS if k != "abstain" for a in self._asks(k, self.held_out)]
        return known + self._asks("abstain", self.people.held_out_gossiped)

    # ---- the oracle -----------------------------------------------------------------------------------------------
    @cached_property
    def _ask_of(self) -> Mapping[str, Ask]:
        people = self.people
        names: dict[Kind, Sequence[str]] = {
            "abstain": people.gossiped,
            "repeat": (*people.names, *people.relation_of),
        }
        return {a.text: a for k in KINDS for a in self._asks(k, names.get(k, people.with_facts))}

    def ask_of(self, prompt: Prompt) -> Ask:
        """The instruction that a prompt is.

        Raises:
            DataError: nobody in this world asks that.
        """
        text = prompt.messages[-1].content
        if text not in self._ask_of:
            raise DataError(
                f"World: {text!r} is none of its instructions; raters that know the world, and its evaluation, can "
                f"only judge prompts of the same world (the same data arguments)"
            )
        return self._ask_of[text]

    def read(self, prompt: Prompt, answer: str) -> Reading:
        """An answer's statements and style, compared with the truth."""
        return read_answer(self.ask_of(prompt), answer, self.people.truth, self.people.relation_of)
