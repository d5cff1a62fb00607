"""Files into raw records, each with the place where it stands.

Text, JSON and tables are parsed here line by line instead of by a data frame, which would guess types from the values
(an answer "2020-01-01" comes back as a date, "None" as missing) and give up on the whole file where one line is broken
without saying which. Parquet has types of its own.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from alignlab.data.files import json_files, tables
from alignlab.data.files.json_files import IsRecord
from alignlab.data.files.opening import TEXT, lines_of, readable, suffix
from alignlab.data.files.raw import Raw
from alignlab.errors import DataError


def read(
    path: Path, is_record: IsRecord, document_characters: int | None = 2000, prompts: bool = False
) -> Iterator[Raw]:
    """All records of a file, in its order, each when it is asked for.

    JSON that is not one object per line is read as a whole.

    Args:
        path: named by what it holds (`opening.KNOWN`).
        is_record: whether some columns are those of a record; decides between layouts.
        document_characters: how plain text is cut into documents; see `documents`.
        prompts: each line of plain text is a prompt.

    Raises:
        DataError: the file is missing, empty, damaged, not UTF-8 or not what its name says, or it is one JSON value
            that is broken.
    """
    is_empty = True
    with readable(path):
        for raw in _records(path, is_record, document_characters, prompts):
            is_empty = False
            yield raw
    if is_empty:
        raise DataError(f"{path}: the file is empty; it holds no record")


def _records(path: Path, is_record: IsRecord, document_characters: int | None, prompts: bool) -> Iterator[Raw]:
    kind, name = suffix(path), str(path)
    if path.stat().st_size == 0:
        return
    if kind == ".parquet":
        yield from tables.parquet_rows(path)
    elif kind in TEXT and prompts:
        lines = enumerate(lines_of(path), start=1)
        yield from (Raw(f"{name}:{number}", {"prompt": line.strip()}) for number, line in lines if line.strip())
    elif kind in TEXT:
        yield from documents(lines_of(path), name, document_characters)
    elif kind == ".csv":
        yield from tables.csv_rows(lines_of(path), name, is_record)
    elif kind == ".tsv":
        yield from tables.tsv_rows(lambda: lines_of(path), name)
    else:
        yield from json_files.records(lines_of(path), name, is_record)


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
