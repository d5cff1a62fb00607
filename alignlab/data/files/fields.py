"""The columns of one record, taken by type; every complaint names file, line, field, what was found and what to do."""

import ast
import contextlib
import json
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from alignlab.data import conversations
from alignlab.data.conversations import Conversation
from alignlab.data.files.reading import Raw
from alignlab.data.records import Message, Prompt
from alignlab.errors import DataError

T = TypeVar("T")

_FLAGS = dict.fromkeys(("true", "1", "1.0", "good"), True) | dict.fromkeys(("false", "0", "0.0", "bad"), False)
_NAMES = {"str": "text", "int": "a number", "float": "a number", "dict": "an object", "bool": "true or false"}


class BadRecordError(DataError):
    """A single record cannot be used; `data.on_bad_record=skip` leaves it out."""


def bad_record(where: str, what: str) -> BadRecordError:
    """The error that says where and what, and what can be done."""
    return BadRecordError(f"{where}: {what}; mend it, or leave such records out with data.on_bad_record=skip")


class Fields:
    """One record's columns.

    Raises:
        BadRecordError: it could not be parsed at all.
    """

    def __init__(self, raw: Raw) -> None:
        self.where = raw.where
        self._values = raw.fields
        if raw.problem:
            raise bad_record(raw.where, raw.problem)

    def text(self, name: str) -> str:
        """A text."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return self.checked(name, lambda: conversations.text(value))

    def optional_text(self, name: str) -> str:
        """A text that may be missing or null, which reads as empty."""
        return "" if self._values.get(name) is None else self.text(name)

    def flag(self, name: str) -> bool:
        """True or false; also 1 and 0, good and bad."""
        word = str(self._value(name)).strip().lower()
        if word not in _FLAGS:
            raise self._wrong(name, "true or false (or 1, 0, good, bad)")
        return _FLAGS[word]

    def records(self, name: str) -> list["Fields"]:
        """A list of objects within this record."""
        value = self._maybe_list(name)
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self._wrong(name, "a list of objects")
        return [Fields(Raw(self.where, v)) for v in value]

    def messages(self, name: str) -> Conversation:
        """A list of messages."""
        value = self._maybe_list(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list of messages, each with role and content")
        return self.checked(name, lambda: conversations.of_messages(value))

    def conversation(self, name: str) -> Conversation:
        """A list of messages, or a transcript."""
        if isinstance(self._maybe_list(name), list):
            return self.messages(name)
        text = self.text(name)
        return self.checked(name, lambda: conversations.of_transcript(text))

    def prompt(self, name: str) -> Prompt:
        """A text, a transcript, or a list of messages that ends with the user's; with the column `system`, if any."""
        value, system = self._maybe_list(name), self.optional_text("system")
        if isinstance(value, list):
            said = self.messages(name)
        else:
            text = self.text(name)
            said = conversations.of_transcript(text) if conversations.is_transcript(text) else (Message("user", text),)
        if said[-1] == Message("assistant", ""):  # "...\n\nAssistant:" asks for the answer
            said = said[:-1]
        before = (Message("system", system),) if system else ()
        return self.checked(name, lambda: conversations.as_prompt((*before, *said)))

    def reply(self, name: str, prompt: Prompt) -> tuple[Prompt, str]:
        """A prompt and its answer: a text, or messages or a transcript, which may hold the prompt over again."""
        if isinstance(self._maybe_list(name), list):
            said = self.messages(name)
            return self.checked(name, lambda: conversations.replied(prompt, said))
        text = self.text(name)
        if conversations.is_transcript(text):
            with contextlib.suppress(ValueError):  # a dialogue that is itself the answer
                return conversations.replied(prompt, conversations.of_transcript(text))
        return prompt, text

    def replies(self, prompt: Prompt) -> tuple[Prompt, str, str]:
        """The fields `chosen` and `rejected`, as answers to one prompt."""
        (asked, better), (other, worse) = self.reply("chosen", prompt), self.reply("rejected", prompt)
        if asked != other:
            raise bad_record(self.where, "chosen and rejected differ before their last answers")
        return asked, better, worse

    def checked(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returns; its `ValueError` becomes a complaint about the field `name`."""
        try:
            return make()
        except ValueError as error:
            raise bad_record(self.where, f"field {name!r}: {error}") from error

    def _maybe_list(self, name: str) -> Any:
        """The value; a cell of a table that holds a list of objects, as JSON or as Python writes it, as that list."""
        value = self._value(name)
        if not isinstance(value, str) or not value.startswith("[{"):
            return value
        for parse in (json.loads, _literal):
            with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return parse(value)
        return value

    def _value(self, name: str) -> Any:
        if self._values.get(name) is None:
            have = ", ".join(str(k) for k, v in self._values.items() if v is not None) or "nothing"
            how = "is null" if name in self._values else "is missing"
            raise bad_record(self.where, f"field {name!r} {how} (the record has {have})")
        return self._values[name]

    def _wrong(self, name: str, wanted: str) -> BadRecordError:
        value = self._values[name]
        kind = _NAMES.get(type(value).__name__, f"a {type(value).__name__}")
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:40] + "..."
        return bad_record(self.where, f"field {name!r} must be {wanted}, found {kind}: {shown}")


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of a backslash in somebody's text
        return ast.literal_eval(text)
