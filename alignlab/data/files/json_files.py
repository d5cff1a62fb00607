"""JSON in the layouts in which records are published.

One object per line; an array; one object that holds the array among other keys; a single record, or several one after
another, spread over lines. The layout is recognised by the content: `.json` and `.jsonl` are used for all of them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from alignlab.data.files.cells import holds_messages
from alignlab.data.files.raw import Raw
from alignlab.errors import DataError

IsRecord = Callable[[Iterable[str]], bool]
"""Whether keys are those of a record."""
Placed = tuple[int, Any]
"""Line of a value, and the value."""

_BLANK_OR_COMMA = re.compile(r"[\s,]*")
_BLANK = re.compile(r"\s*")


def records(lines: Iterable[str], name: str, is_record: IsRecord) -> Iterator[Raw]:
    """The records of a file.

    Args:
        lines: of the file.
        name: of the file, for messages.
        is_record: distinguishes a record from an object that holds records.

    Raises:
        DataError: it is an array, or one object, that is broken or holds no list of records.
    """
    stream = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    first = next(stream, None)
    if first is None:
        return
    second = next(stream, None)
    if second is not None and _is_object(first[1]):
        yield from _by_line([first, second], name)
        yield from _by_line(stream, name)
    else:
        yield from _whole([first, *([second] if second else []), *stream], name, is_record)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _by_line(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Raw]:
    for number, line in lines:
        try:
            yield of_value(json.loads(line), f"{name}:{number}")
        except (ValueError, RecursionError) as error:
            yield Raw(f"{name}:{number}", problem=f"broken JSON ({_why(error)}); each line must be one object")


def of_value(value: object, where: str) -> Raw:
    """A JSON value as a record."""
    if isinstance(value, dict):
        return Raw(where, value)
    if isinstance(value, str):
        return Raw(where, {"text": value})
    return Raw(where, problem=f"a record must be a JSON object, found {type(value).__name__}")


# ---- a file whose first line is not a record -------------------------------------------------------------------------
def _whole(lines: list[tuple[int, str]], name: str, is_record: IsRecord) -> Iterator[Raw]:
    text = _joined(lines)
    try:
        values = list(_values(text))
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("[") or not any(_is_object(line) for _, line in lines):
            raise _broken(text, name, error) from error
        yield from _by_line(lines, name)
        return
    if len(values) > 1:
        yield from _placed(values, name)
    elif isinstance(values[0][1], list):
        yield from _placed(_elements(text, text.index("[") + 1), name)
    else:
        yield from _single(values[0], text, name, is_record)


def _placed(values: Iterable[Placed], name: str) -> Iterator[Raw]:
    """The records by their lines, and by their number too where a line holds several."""
    found = list(values)
    on_line = Counter(line for line, _ in found)
    for number, (line, value) in enumerate(found, start=1):
        yield of_value(value, f"{name}:{line}" if on_line[line] == 1 else f"{name}:{line}, record {number}")


def _joined(lines: list[tuple[int, str]]) -> str:
    """The text again, its empty lines put back so that lines keep their numbers."""
    parts, last = [], 0
    for number, line in lines:
        parts.append("\n" * (number - last - 1) + line)
        last = number
    return "\n".join(parts)


def _single(placed: Placed, text: str, name: str, is_record: IsRecord) -> Iterator[Raw]:
    """The only value of a file: a record, or an object that holds the records."""
    line, value = placed
    if isinstance(value, dict) and value and all(isinstance(v, dict) and is_record(v) for v in value.values()):
        note = "the records are the values of its keys"
        yield from (Raw(f"{name}, key {key!r}", record, note=note) for key, record in value.items())
        return
    key = _key_of_records(value, name, is_record)
    if key is None:
        yield of_value(value, f"{name}:{line}")
        return
    others = ", ".join(k for k in value if k != key)
    note = f"the records are those of its key {key!r}" + (f", keys not used: {others}" if others else "")
    yield from (replace(raw, note=note) for raw in _placed(_elements(text, _start_of(text, key) + 1), name))


def _key_of_records(value: Any, name: str, is_record: IsRecord) -> str | None:
    """The key of an object under which its records are; None where it is itself a record, or holds nothing known."""
    if not isinstance(value, dict):
        return None
    if _by_column(value):
        raise DataError(
            f"{name} holds its table by columns ({', '.join(value)}), as pandas writes it by default; save it with "
            f"to_json(orient='records')"
        )
    lists = [str(k) for k, v in value.items() if _lists_objects(v) and not holds_messages(v)]
    if is_record(value) or not lists:
        return None
    fitting = [k for k in lists if is_record(value[k][0])] or lists
    if len(fitting) > 1:
        raise DataError(
            f"{name} is one JSON object that holds several lists of records ({', '.join(fitting)}); save the one that "
            f"is meant as a file of its own"
        )
    return fitting[0]


def _lists_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _by_column(value: dict[str, Any]) -> bool:
    """Whether every key holds a column: lists of one length, or objects with the same keys (row numbers)."""
    columns = list(value.values())
    if len(columns) < 2 or any(holds_messages(c) for c in columns):
        return False
    if all(isinstance(c, list) for c in columns):
        return len({len(c) for c in columns}) == 1 and not any(_lists_objects(c) for c in columns)
    return all(isinstance(c, dict) for c in columns) and len({frozenset(c) for c in columns}) == 1


def _start_of(text: str, key: str) -> int:
    """Where the value of a key of the outermost object begins; the last one where it is there twice, as in JSON."""
    decoder = json.JSONDecoder()
    at, found = _after(_BLANK_OR_COMMA, text, text.index("{") + 1), 0
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _after(_BLANK, text, _after(_BLANK, text, at) + 1)  # the colon
        found = at if name == key else found
        _, at = decoder.raw_decode(text, at)
        at = _after(_BLANK_OR_COMMA, text, at)
    return found


def _values(text: str) -> Iterator[Placed]:
    """Line and value of each JSON value of a text, one after another."""
    decoder = json.JSONDecoder()
    line, counted, at = 1, 0, _after(_BLANK, text, 0)
    while at < len(text):
        line, counted = line + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        yield line, value
        at = _after(_BLANK, text, at)


def _elements(text: str, at: int) -> Iterator[Placed]:
    """Line and value of each element of a JSON array that is known to be whole; `at` is after its bracket."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    while True:
        at = _after(_BLANK_OR_COMMA, text, at)
        if text[at] == "]":
            return
        line, counted = line + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        yield line, value


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _why(error: Exception) -> str:
    return f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _broken(text: str, name: str, error: Exception) -> DataError:
    line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
    what = "an array" if text.lstrip().startswith("[") else "a file without a whole object on any line"
    return DataError(
        f"{name}:{line}: broken JSON ({_why(error)}); {what} cannot be read past that: correct it, or save one object "
        f"per line as .jsonl, where a broken line can be skipped"
    )
