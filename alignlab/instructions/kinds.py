"""The 25 kinds by their public ids, and an instruction of one of them from its arguments."""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final, get_args

from alignlab.errors import DataError, suggestion
from alignlab.instructions import formats, keywords, lengths, wholes
from alignlab.instructions.base import Instruction, Relation

KINDS: Final[Mapping[str, type[Instruction]]] = MappingProxyType(
    {
        kind.ID: kind
        for kind in (
            keywords.Existence,
            keywords.Frequency,
            keywords.ForbiddenWords,
            keywords.LetterFrequency,
            wholes.ResponseLanguage,
            lengths.NumberSentences,
            lengths.NumberParagraphs,
            lengths.NumberWords,
            lengths.NthParagraphFirstWord,
            formats.NumberPlaceholders,
            formats.Postscript,
            formats.NumberBulletLists,
            formats.ConstrainedResponse,
            formats.NumberHighlightedSections,
            formats.MultipleSections,
            formats.JsonFormat,
            formats.Title,
            wholes.TwoResponses,
            wholes.RepeatPrompt,
            wholes.EndChecker,
            wholes.Quotation,
            wholes.CapitalWordFrequency,
            wholes.EnglishCapital,
            wholes.EnglishLowercase,
            wholes.NoComma,
        )
    }
)
"""Class of each kind, in the order of the paper's table."""


def instruction(kind: str, arguments: Mapping[str, Any] | None = None) -> Instruction:
    """An instruction of a kind.

    Args:
        kind: its public id, `keywords:existence`.
        arguments: by name; those that are None are left out, as published data sets fill them up with nulls.

    Raises:
        DataError: there is no such kind, an argument is missing, unknown or of the wrong type, or its value is not
            allowed; the message names the kind, the argument and the value.
        ConfigError: the kind needs a library that is not installed.
    """
    if kind not in KINDS:
        raise DataError(f"unknown kind of instruction {kind!r} (kinds: {', '.join(KINDS)}){suggestion(kind, [*KINDS])}")
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    types = {field.name: field.type for field in fields(KINDS[kind])}  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in types:
            takes = f"it takes {', '.join(types)}" if types else "it takes none"
            raise DataError(f"{kind}: has no argument {name}, got {value!r}; {takes}{suggestion(name, [*types])}")
    if missing := [name for name in types if name not in given]:
        raise DataError(f"{kind}: lacks its argument {', '.join(missing)}")
    return KINDS[kind](**{name: _value(kind, name, types[name], value) for name, value in given.items()})


def _value(kind: str, name: str, wanted: Any, value: Any) -> Any:
    """An argument in the type of its field.

    Raises:
        DataError: it is of another type.
    """
    if wanted is int and _is_count(value):
        return int(value)
    if wanted is str and _is_text(value):
        return value
    if wanted is Relation and value in get_args(Relation):
        return value
    if wanted not in (int, str, Relation) and isinstance(value, list | tuple) and value and all(map(_is_text, value)):
        return tuple(value)
    rule = {
        int: "a whole number >= 0",
        str: "a text that is not blank",
        Relation: " or ".join(f'"{word}"' for word in get_args(Relation)),
    }
    raise DataError(f"{kind}: {name} must be {rule.get(wanted, 'a list of texts that are not blank')}, got {value!r}")


def _is_count(value: object) -> bool:
    """Whether it is a number of things; some published files write them as floats, 3.0."""
    if isinstance(value, float):
        return value >= 0 and value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
