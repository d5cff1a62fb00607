"""The columns of one record, taken by type; every complaint names file, line, field, what was found and what to do."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from alignlab.data import conversations, judgement
from alignlab.data.conversations import Conversation, is_missing
from alignlab.data.files import cells
from alignlab.data.files.raw import Raw
from alignlab.data.problems import Problems
from alignlab.data.records import Facts, Message, Prompt
from alignlab.errors import DataError

T = TypeVar("T")

REMEDY = "correct it, or leave such records out with data.on_bad_record=skip"
_FLAGS = dict.fromkeys(("true", "1", "1.0", "good"), True) | dict.fromkeys(("false", "0", "0.0", "bad"), False)
_NAMES = {"str": "text", "int": "a number", "float": "a number", "dict": "an object", "bool": "true or false"}


class BadRecordError(DataError):
    """A single record cannot be used; `data.on_bad_record=skip` leaves it out.

    Args:
        where: its file and line.
        what: what is wrong.
        kind: records of one kind are counted together; see `Problems.add`.
    """

    def __init__(self, where: str, what: str, kind: str = "") -> None:
        super().__init__(f"{where}: {what}; {REMEDY}")
        self.where = where
        self.what = what
        self.kind = kind


class Fields:
    """One record's columns.

    Args:
        raw: the record.
        remarks: collects what was read in an unusual way, or not at all.

    Raises:
        BadRecordError: it could not be parsed at all.
    """

    def __init__(self, raw: Raw, remarks: Problems | None = None) -> None:
        self.where = raw.where
        self.remarks = Problems() if remarks is None else remarks
        self._table = raw.table
        self._values = raw.fields
        if raw.problem:
            raise BadRecordError(raw.where, raw.problem)

    # ---- texts and flags ---------------------------------------------------------------------------------------------
    def text(self, name: str) -> str:
        """A text, taken as it stands."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return self.checked(name, lambda: conversations.text(value))

    def said(self, name: str) -> str:
        """A turn's text; the cell of a table must not be a list of messages that was written into it."""
        text = self.text(name)
        if self._table and self.checked(name, lambda: cells.messages_in(text, strict=True)) is not None:
            raise self._bad(
                f"field {name!r} holds a list of messages where a text is expected; name the columns prompt and "
                f"completion, or messages (or save the file as JSON lines, where it is taken as the text that it is)"
            )
        return text

    def optional(self, name: str) -> str:
        """A text that may be missing (absent, null, NaN), which reads as empty."""
        return "" if is_missing(self._values.get(name)) else self.said(name)

    def flag(self, name: str) -> bool:
        """True or false; also 1 and 0, good and bad."""
        word = str(self._value(name)).strip().lower()
        if word not in _FLAGS:
            raise self._wrong(name, "true or false (or 1, 0, good, bad)")
        return _FLAGS[word]

    def facts(self, names: Sequence[str]) -> Facts:
        """Columns that are carried along with the prompt: texts, numbers and flags, written as text."""
        return tuple((name, self._fact(name)) for name in names if not is_missing(self._values.get(name)))

    def _fact(self, name: str) -> str:
        value = self._values[name]
        if not isinstance(value, str | int | float):
            raise self._wrong(name, "a text, a number or true or false, as data.facts names it")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def scores(self, names: Sequence[str]) -> dict[str, float]:
        """Numbers on the answer in the columns that `data.scores` names."""
        try:
            return judgement.numbers("scores", {name: self._values.get(name) for name in names})
        except ValueError as error:
            raise self._bad(str(error)) from error

    def notes(self) -> dict[str, float]:
        """Numbers on a judgement in the record's columns: margin, agreement, probability, tie."""
        try:
            return judgement.notes(self._values)
        except ValueError as error:
            raise self._bad(str(error)) from error

    # ---- lists -------------------------------------------------------------------------------------------------------
    def records(self, name: str) -> list["Fields"]:
        """A list of objects within this record."""
        value = self._value(name)
        found = cells.objects_in(value) if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(v, dict) for v in found):
            raise self._wrong(name, "a list of objects")
        return [Fields(Raw(self.where, v), self.remarks) for v in found]

    def ranked(self, name: str) -> list[str]:
        """A list of two or more texts, all different."""
        value = self._value(name)
        found = cells.objects_in(value) if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
            raise self._wrong(name, "a list of texts, the best first")
        if len(found) < 2:
            raise self._bad(f"field {name!r} holds {len(found)} answers; a ranking needs two or more")
        if repeated := next((v for i, v in enumerate(found) if v in found[:i]), None):
            raise self._bad(f"field {name!r} ranks the answer {repeated!r:.60} at two places; keep one of them")
        return self.checked(name, lambda: [conversations.text(v) for v in found])

    def turns(self, name: str) -> tuple[Conversation, list[bool]]:
        """A list of messages, and whether each is learnt from."""
        found = self._messages_in(name)
        if found is None:
            raise self._wrong(name, "a list of messages, each with role and content")
        said = self._conversation(name, found, weighted=True)
        learnt = self.checked(name, lambda: conversations.trained(found))
        whole = self._with_system(said)
        return whole, [True] * (len(whole) - len(said)) + learnt

    def conversation(self, name: str) -> Conversation:
        """A list of messages, or a transcript."""
        found = self._messages_in(name)
        if found is not None:
            return self._with_system(self._conversation(name, found))
        text = self.text(name)
        return self._with_system(self.checked(name, lambda: conversations.of_transcript(text)))

    # ---- prompts and answers -----------------------------------------------------------------------------------------
    def prompt(self, name: str) -> Prompt:
        """A text, a transcript, or a list of messages that ends with the user's."""
        found = self._messages_in(name)
        if found is not None:
            said = self._conversation(name, found)
        else:
            text = self.text(name)
            said = conversations.of_transcript(text) if conversations.is_transcript(text) else (Message("user", text),)
        if said[-1] == Message("assistant", ""):  # "...\n\nAssistant:" asks for the answer
            said = said[:-1]
        return self.checked(name, lambda: conversations.as_prompt(self._with_system(said)))

    def reply(self, name: str, prompt: Prompt) -> tuple[Prompt, str]:
        """A prompt and its answer: a text, or messages or a transcript, which may hold the prompt once more."""
        value = self._value(name)
        if not isinstance(value, str) or self._table:
            found = self._messages_in(name)
            if found is not None:
                said = self._conversation(name, found)
                return self.checked(name, lambda: conversations.replied(prompt, said))
        text = self.text(name)
        with contextlib.suppress(ValueError):  # messages or a dialogue that are themselves the answer
            if (found := cells.messages_in(text)) is not None:
                reply = conversations.replied(prompt, conversations.of_messages(found))
                self._remark_parsed(name)
                self._conversation(name, found)  # names keys that are not used
                return reply
            if conversations.is_transcript(text):
                return conversations.replied(prompt, conversations.of_transcript(text))
        return prompt, text

    def replies(self, prompt: Prompt) -> tuple[Prompt, str, str]:
        """The fields `chosen` and `rejected`, as answers to one prompt."""
        (asked, better), (other, worse) = self.reply("chosen", prompt), self.reply("rejected", prompt)
        if asked != other:
            raise self._bad("chosen and rejected differ before their last answers")
        return asked, better, worse

    def checked(self, name: str, make: Callable[[], T]) -> T:
        """The result of `make`; its `ValueError` becomes a complaint about the field `name`."""
        try:
            return make()
        except BadRecordError:
            raise
        except ValueError as error:
            raise self._bad(f"field {name!r}: {error}") from error

    # ---- values ------------------------------------------------------------------------------------------------------
    def _messages_in(self, name: str) -> list[Any] | None:
        """The list of messages that a field is, or holds as text; None where it is something else."""
        value = self._value(name)
        if not isinstance(value, str):
            single = isinstance(value, dict) and cells.holds_messages(value)
            return [value] if single else value if isinstance(value, list) else None
        found = self.checked(name, lambda: cells.messages_in(value, self._table))
        if found is not None:
            self._remark_parsed(name)
        return found

    def _conversation(self, name: str, value: list[Any], weighted: bool = False) -> Conversation:
        said = self.checked(name, lambda: conversations.of_messages(value))
        if unused := conversations.unused_keys(value, weighted):
            self.remarks.add(self.where, f"keys of messages not used: {', '.join(unused)}")
        return said

    def _with_system(self, said: Conversation) -> Conversation:
        """The conversation after the message of the column `system`, where there is one."""
        system = self.optional("system")
        own = [m.content for m in said if m.role == "system"]
        if own and system and own != [system]:
            raise self._bad("the column system and the conversation hold different system messages; keep one of them")
        return said if own or not system else (Message("system", system), *said)

    def _remark_parsed(self, name: str) -> None:
        self.remarks.add(self.where, f"field {name!r} is a text that holds a list of messages; read as that list")

    def _value(self, name: str) -> Any:
        value = self._values.get(name)
        if value is None or value != value:  # NaN
            have = ", ".join(str(k) for k, v in self._values.items() if not is_missing(v)) or "nothing"
            how = "is missing" if name not in self._values else "is null" if value is None else "is NaN, so missing"
            raise self._bad(f"field {name!r} {how} (the record has {have})", f"{name} is missing")
        return value

    def _bad(self, what: str, kind: str = "") -> BadRecordError:
        return BadRecordError(self.where, what, kind)

    def _wrong(self, name: str, wanted: str) -> BadRecordError:
        value = self._values[name]
        kind = _NAMES.get(type(value).__name__, f"a {type(value).__name__}")
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:40] + "..."
        what = f"field {name!r} must be {wanted}"
        return self._bad(f"{what}, found {kind}: {shown}", what)
