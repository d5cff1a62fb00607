"""The records that every data source is read into, whatever its files looked like."""

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """The conversation before an answer; the last message is the user's."""

    messages: tuple[Message, ...]

    @classmethod
    def user(cls, text: str, system: str | None = None) -> "Prompt":
        """A single question."""
        before = (Message("system", system),) if system else ()
        return cls((*before, Message("user", text)))

    @property
    def text(self) -> str:
        """What a reader sees: the message alone when there is one, else the turns with their roles."""
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n\n".join(f"{m.role}: {m.content}" for m in self.messages)


@dataclass(frozen=True)
class Document:
    """Plain text for pretraining. `source` says where it came from (file and line), for messages."""

    text: str
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Example:
    """An answered instruction. `kind` groups examples in evaluations."""

    prompt: Prompt
    answer: str
    kind: str = ""
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, of which the first was preferred."""

    prompt: Prompt
    chosen: str
    rejected: str
    source: str = field(default="", compare=False)


@dataclass(frozen=True)
class Labelled:
    """A single answer that somebody called good or bad."""

    prompt: Prompt
    answer: str
    good: bool
    source: str = field(default="", compare=False)
