"""Files into raw records, each with the place where it stands.

Hugging Face `datasets` opens, decompresses and streams the files, so nothing is written to a cache and nothing asks
the network. Its line reader is used for text, JSON and CSV alike, and the records are parsed here: its own JSON
and CSV readers guess types from the values (an answer "2020-01-01" comes back as a datetime, "None" as missing),
give up on the whole file where one line is broken, and do not say which line that was. Parquet has types of its own.
"""

import csv
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.errors import DataError

TEXT = (".txt", ".text", ".md")
LINES = (".jsonl", ".ndjson")
KNOWN = (*TEXT, *LINES, ".json", ".csv", ".tsv", ".parquet")
"""Suffixes that are read; all but parquet also with `.gz` behind them."""

_BLANK_OR_COMMA = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Raw:
    """One record as it stands in a file.

    Args:
        where: file and line (or row), for messages.
        fields: its columns; empty where there is a problem.
        problem: why it could not be parsed; empty where it could.
    """

    where: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def suffix(path: Path) -> str:
    """What kind of file the name says it is, compression left out.

    Raises:
        DataError: it is none of those that are read.
    """
    if path == Path():
        raise DataError("a file's name is empty; name a file, or leave the key out")
    names = [s.lower() for s in path.suffixes[-2:]]
    packed = bool(names) and names[-1] == ".gz"
    kind = (names[:-1] or [""])[-1] if packed else (names or [""])[-1]
    if kind not in KNOWN or (packed and kind == ".parquet"):
        raise DataError(
            f"{path}: unknown extension {''.join(path.suffixes) or '(none)'}; name the file by what it holds: "
            f"{', '.join(KNOWN)} (all but .parquet also with .gz)"
        )
    return kind


def read(path: Path, document_characters: int | None = 2000) -> list[Raw]:
    """All records of a file, in its order.

    Args:
        path: named by what it holds (`KNOWN`).
        document_characters: how plain text is cut into documents; see `documents`.

    Raises:
        DataError: the file is missing, empty, damaged or not UTF-8, or it is a JSON array that is broken.
    """
    kind = suffix(path)
    check_exists(path)
    try:
        found = list(_records(path, kind, document_characters))
    except UnicodeDecodeError as error:
        line = _first_line_not_utf8(path)
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); is it complete?") from error
    if not found:
        raise DataError(f"{path}: the file is empty; it holds no record")
    return found


def check_exists(path: Path) -> None:
    """Raise `DataError` where there is no such file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it, or several as [a.jsonl,b.jsonl]")
    if not path.is_file():
        raise DataError(f"no such file: {path} (looked in {path.absolute().parent})")


def _records(path: Path, kind: str, document_characters: int | None) -> Iterator[Raw]:
    if path.stat().st_size == 0:
        return
    if kind == ".parquet":
        yield from _parquet(path)
        return
    lines = _lines(path)
    if kind in TEXT:
        yield from documents(lines, str(path), document_characters)
    elif kind in (".csv", ".tsv"):
        yield from _csv(lines, path, "," if kind == ".csv" else "\t")
    elif kind == ".json":
        text = "\n".join(lines)
        if text.lstrip().startswith("["):
            yield from _json_array(text, path)
        else:
            yield from _json_lines(text.split("\n"), path)
    else:
        yield from _json_lines(lines, path)


def _stream(builder: str, path: Path) -> Iterator[dict[str, Any]]:
    # Here, not at the top: importing datasets takes a second, and planning needs none of it.
    import datasets  # type: ignore[import-untyped]

    escaped = glob.escape(str(path.absolute()))
    yield from datasets.load_dataset(builder, data_files=escaped, split="train", streaming=True)


def _lines(path: Path) -> Iterator[str]:
    for number, row in enumerate(_stream("text", path)):
        line: str = row["text"]
        yield line.removeprefix("\ufeff") if number == 0 else line


def _first_line_not_utf8(path: Path) -> int:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def documents(lines: Iterable[str], name: str, characters: int | None) -> Iterator[Raw]:
    """Plain text, cut into documents of about `characters` characters.

    A document ends at the first blank line after `characters` have been reached, or at the end of a line once it is
    twice as long, so that no line is torn. 0 makes every paragraph a document, None the whole file one.
    """
    held: list[str] = []
    size, start = 0, 1
    for number, line in enumerate(lines, start=1):
        if not held and not line.strip():
            continue
        if not held:
            size, start = 0, number
        full = characters is not None and size >= characters and not line.strip()
        held.append(line)
        size += len(line) + 1
        if full or (characters and size >= 2 * characters):
            yield _document(held, name, start)
            held = []
    if held:
        yield _document(held, name, start)


def _document(lines: list[str], name: str, start: int) -> Raw:
    return Raw(f"{name}:{start}", {"text": "\n".join(lines).rstrip("\n")})


def _json_lines(lines: Iterable[str], path: Path) -> Iterator[Raw]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _object(json.loads(line), f"{path}:{number}")
            except (ValueError, RecursionError) as error:
                what = error.msg if isinstance(error, json.JSONDecodeError) else error
                column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                yield Raw(f"{path}:{number}", problem=f"broken JSON ({what}{column}); each line must be one object")


def _json_array(text: str, path: Path) -> Iterator[Raw]:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        line, what = (
            (error.lineno, f"{error.msg}, column {error.colno}")
            if isinstance(error, json.JSONDecodeError)
            else (1, error)
        )
        raise DataError(
            f"{path}:{line}: broken JSON ({what}); an array cannot be read past "
            f"that: mend it, or save one object a line as .jsonl, where a broken line can be skipped"
        ) from error
    for line, value in _elements(text):
        yield _object(value, f"{path}:{line}")


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    """Line and value of each element of a JSON array that is known to be whole."""
    decoder = json.JSONDecoder()
    line, counted, at = 1, 0, text.index("[") + 1
    while True:
        separator = _BLANK_OR_COMMA.match(text, at)
        at = separator.end() if separator else at
        if text[at] == "]":
            return
        line, counted = line + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        yield line, value


def _object(value: object, where: str) -> Raw:
    if isinstance(value, dict):
        return Raw(where, value)
    if isinstance(value, str):
        return Raw(where, {"text": value})
    return Raw(where, problem=f"a record must be a JSON object, found {type(value).__name__}")


def _csv(lines: Iterator[str], path: Path, delimiter: str) -> Iterator[Raw]:
    # The limit (128 kB a field) is the csv module's own and global; a long text is no mistake.
    before = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise DataError(f"{path}:1: a column is named twice in the header: {', '.join(header)}")
        start = reader.line_num + 1
        for values in reader:
            if values:
                yield _csv_row(header, values, f"{path}:{start}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{start}: broken CSV ({error}); a quote is probably not closed") from error
    finally:
        csv.field_size_limit(before)


def _csv_row(header: list[str], values: list[str], where: str) -> Raw:
    if len(values) != len(header):
        return Raw(where, problem=f"{len(values)} fields where the header has {len(header)} ({', '.join(header)})")
    return Raw(where, dict(zip(header, values, strict=True)))


def _parquet(path: Path) -> Iterator[Raw]:
    import pyarrow  # type: ignore[import-untyped]

    try:
        for number, row in enumerate(_stream("parquet", path), start=1):
            yield Raw(f"{path}, row {number}", row)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
