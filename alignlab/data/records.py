"""The records that every data source is read into, whatever its files looked like."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alignlab.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """The conversation before an answer; the last message is the user's, or a tool's result.

    Args:
        messages: the turns.
        facts: what is known about the prompt beyond its text, as (name, value): the reference answer (`answer`) of a
            question that has one, metadata of its record. Rewards and evaluations read them; no model sees them, so
            prompts with the same messages are equal.
    """

    messages: tuple[Message, ...]
    facts: Facts = field(default=(), compare=False)

    @classmethod
    def user(cls, text: str, system: str | None = None) -> "Prompt":
        """A single question."""
        before = (Message("system", system),) if system else ()
        return cls((*before, Message("user", text)))

    @property
    def text(self) -> str:
        """The message alone when there is one, else the turns with their roles."""
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n\n".join(f"{m.role}: {m.content}" for m in self.messages)

    def fact(self, name: str) -> str:
        """The fact of that name.

        Raises:
            DataError: the prompt has none; the message lists those that it has.
        """
        for known, value in self.facts:
            if known == name:
                return value
        have = ", ".join(known for known, _ in self.facts) or "no facts"
        raise DataError(
            f"the prompt {self.text[:60]!r} has no fact {name!r} (it has {have}); question_answer records bring "
            f"`answer`, and data.facts=[{name}] carries a column of that name"
        )


@dataclass(frozen=True)
class Document:
    """Plain text for pretraining. `source` is where it came from (file and line), for messages."""

    text: str
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Asked:
    """A prompt without an answer. `source` is where it came from (file and line), for messages."""

    prompt: Prompt
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Example:
    """An answered instruction.

    Args:
        prompt: the conversation before the answer.
        answer: what to imitate.
        kind: groups examples in evaluations.
        source: where it came from, for messages.
        scores: what is known of the answer (rewards, in reward units), by name.
    """

    prompt: Prompt
    answer: str
    kind: str = ""
    source: str = field(default="", compare=False)
    scores: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, of which the first was preferred.

    Args:
        prompt: what both answer.
        chosen: the preferred answer.
        rejected: the other one.
        source: where the pair came from, for messages.
        notes: what is known of the judgement, by name: `margin` (chosen minus rejected, in units of the scores
            given), `agreement` (share of the judges who prefer the chosen answer, 0 to 1), `probability` (that the
            *chosen* answer is chosen, 0 to 1; below 0.5 where the less likely choice was made) and `tie` (1 where
            neither was preferred, so that their order means nothing; else 0).
    """

    prompt: Prompt
    chosen: str
    rejected: str
    source: str = field(default="", compare=False)
    notes: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Ranking:
    """Two or more answers to one prompt in the order of a judge, the best first."""

    prompt: Prompt
    answers: tuple[str, ...]
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Labelled:
    """A single answer that was called good or bad."""

    prompt: Prompt
    answer: str
    good: bool
    source: str = field(default="", compare=False)
