"""Lists that were written into a text: JSON, Python's repr, numpy's repr (what pandas makes of a list in a table).

A text is taken for a list of messages by its content: objects with `role` and `content`. An answer that is some other
JSON stays the text that it is.
"""

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Callable
from typing import Any

Read = Callable[[str], Any]

_OPENING = re.compile(r"""["'(]*\s*(?:array\s*\()?[\s(\[]*\{""")
"""How a serialised list of objects begins."""
_STRING_OR_NUMPY = re.compile(
    r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""  # kept as it is
    r"""|(\})\s*(?=\{)|\b(array\s*\()|(,\s*dtype=\w+)|\b(nan)\b""",
    re.DOTALL,
)
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
_QUOTED_KEY = r"""["'\\]+""", r"""["'\\]+\s*:"""
_ANY_KEY = r"\b", r"""(?:["'\\]|&quot;|&#34;)*\s*[:=]"""
"""Before and after the name of a key."""
_SPEAKERS = ("human", "gpt", "system", "user", "assistant", "chatgpt", "bot", "model", "tool", "function")
"""Values of `from` by which a message of ShareGPT is recognised."""


def holds_messages(value: object) -> bool:
    """Whether a value is a list of objects of which one is a message, or is itself one."""
    found = value if isinstance(value, list) else [value]
    return all(isinstance(v, dict) for v in found) and any(_is_message(v) for v in found)


def _is_message(value: Any) -> bool:
    if {"role", "content"} <= value.keys():
        return isinstance(value["role"], str)
    return "value" in value and value.get("from") in _SPEAKERS


def messages_in(text: str, strict: bool = False) -> list[Any] | None:
    """The list of messages that a text holds, a single one as a list of one; None where it holds something else.

    Args:
        text: of a field.
        strict: also refuse what only resembles a list of messages: other JSON that holds some, keys without quotes.

    Raises:
        ValueError: it looks like a list of messages and cannot be read.
    """
    if not _OPENING.match(_stripped(text)):
        return None
    found = objects_in(text)
    if found is not None and holds_messages(found):
        return found
    if (found is None and _names_messages(text)) or (strict and _names_messages(text, quoted=False)):
        raise ValueError("it looks like a list of messages, but not as JSON, Python or numpy write one")
    return None


def objects_in(text: str) -> list[Any] | None:
    """The list that a text holds, a single object as a list of one; None where it cannot be read as one."""
    for read in (json.loads, ast.literal_eval, _of_numpy):
        found = _tried(read, _stripped(text))
        if isinstance(found, str) and found != text:  # JSON within a JSON string
            return objects_in(found)
        if isinstance(found, dict):
            return [found]
        if isinstance(found, list | tuple):
            return list(found)
    return None


def _tried(read: Read, text: str) -> Any:
    with warnings.catch_warnings(), contextlib.suppress(*_UNREADABLE):
        warnings.simplefilter("ignore", SyntaxWarning)  # of a backslash in somebody's text
        return read(text)
    return None


def _of_numpy(text: str) -> Any:
    """Numpy's repr as Python's: commas between objects, no `array(...)`, no `nan`."""

    def written(match: re.Match[str]) -> str:
        string, closing, opening, ending, nan = match.groups()
        return string or (closing and "},") or (opening and "(") or (ending and "") or (nan and "None") or ""

    return ast.literal_eval(_STRING_OR_NUMPY.sub(written, text))


def _stripped(text: str) -> str:
    return text.strip().strip("\ufeff\u200b").strip()


def _names_messages(text: str, quoted: bool = True) -> bool:
    """Whether a text names the keys of a message, as JSON does; without `quoted`, also as Java, YAML or HTML do."""
    before, after = _QUOTED_KEY if quoted else _ANY_KEY
    speaker = rf"""{before}from{after}\W*(?:quot;)?(?:{"|".join(_SPEAKERS)})\b"""
    named = [re.search(f"{before}{key}{after}", text) for key in ("role", "content")]
    return all(named) or re.search(speaker, text) is not None
