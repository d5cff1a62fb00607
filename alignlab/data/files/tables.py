"""CSV, TSV and parquet.

CSV is split at the delimiter of its header: a comma, or a semicolon, a tab or a bar where commas leave a single
column. TSV has no quotes and no escapes: a row is a line, and the text between two tabs is a cell.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from alignlab.data.files import opening
from alignlab.data.files.json_files import IsRecord
from alignlab.data.files.raw import Raw
from alignlab.errors import DataError

DELIMITERS: Final[dict[str, str]] = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ROWS: Final = 1024
"""Rows of a parquet file that are in memory at a time."""

_NAMED = re.compile(r"sep=(.)")  # a first line that Excel writes and reads


def csv_rows(lines: Iterable[str], name: str, is_record: IsRecord) -> Iterator[Raw]:
    """The rows of a CSV file.

    Args:
        lines: of the file.
        name: of the file, for messages.
        is_record: whether columns are those of a record; decides between delimiters.

    Raises:
        DataError: a column is named twice, or a quote is never closed.
    """
    lines = iter(lines)
    first = next(lines, "")
    named = _NAMED.fullmatch(first)
    if named:
        first = next(lines, "")
    delimiter = named[1] if named else _delimiter(first, is_record)
    note = "" if delimiter == "," else f"split at {DELIMITERS.get(delimiter, repr(delimiter))}"
    yield from _parsed(itertools.chain([first], lines), name, delimiter, note, skipped=1 if named else 0)


def _delimiter(header: str, is_record: IsRecord) -> str:
    """The first delimiter that makes a record of the header; else the first that makes several columns of it."""
    columns = {d: _columns(header, d) for d in DELIMITERS}
    fits = [d for d, names in columns.items() if is_record([n.strip() for n in names])]
    several = [d for d, names in columns.items() if len(names) > 1]
    return [*fits, *several, ","][0]


def _columns(header: str, delimiter: str) -> list[str]:
    """The header's columns by one delimiter; none where it is not a header of that, or no text of a table at all."""
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:  # a field beyond the module's limit
        return []


def _parsed(lines: Iterable[str], name: str, delimiter: str, note: str, skipped: int) -> Iterator[Raw]:
    # The limit (128 kB per field) is the csv module's own and global; a long text is not a mistake.
    before = csv.field_size_limit(opening.LONGEST_LINE)
    start = 1 + skipped
    try:
        reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
        header = _header(next(reader, []), f"{name}:{start}")
        start = reader.line_num + 1 + skipped
        for values in reader:
            if values:
                yield _row(header, values, f"{name}:{start}", note)
            start = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise DataError(f"{name}:{start}: broken CSV ({error}); a quote is probably not closed") from error
    finally:
        csv.field_size_limit(before)


def tsv_rows(lines_of: Callable[[], Iterable[str]], name: str) -> Iterator[Raw]:
    """The rows of a TSV file, quotes as they stand.

    Args:
        lines_of: gives the lines of the file, each time from the first one.
        name: of the file, for messages.

    Raises:
        DataError: a column is named twice.
    """
    header = _header(next(iter(lines_of()), "").split("\t"), f"{name}:1")
    rows, quoted = 0, 0
    for _, values in _tsv_cells(lines_of()):
        rows, quoted = rows + 1, quoted + any(_quoted(v) for v in values)
    note = (
        f'{quoted} of {rows} rows have cells that look quoted as in CSV ("a ""b"""); TSV has no quotes, so they '
        f"are kept (name the file .csv to have them read as quotes)"
        if quoted
        else ""
    )
    yield from (_row(header, values, f"{name}:{number}", note) for number, values in _tsv_cells(lines_of()))


def _tsv_cells(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each row below the header."""
    return ((number, line.split("\t")) for number, line in enumerate(lines, start=1) if number > 1 and line)


def _quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]


def _header(names: list[str], where: str) -> list[str]:
    header = [name.strip() for name in names]
    if len(set(header)) < len(header):
        raise DataError(f"{where}: a column is named twice in the header: {', '.join(header)}")
    return header


def _row(header: list[str], values: list[str], where: str, note: str) -> Raw:
    if len(values) == len(header):
        return Raw(where, dict(zip(header, values, strict=True)), table=True, note=note)
    problem = f"{len(values)} fields where the header has {len(header)} ({', '.join(header)})"
    return Raw(where, problem=problem, table=True, note=note)


def parquet_rows(path: Path) -> Iterator[Raw]:
    """The rows of a parquet file.

    Raises:
        DataError: it is not one, or holds no row.
    """
    # Here, not at the top: planning needs none of it.
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{path}: the file has no rows (columns: {', '.join(file.schema_arrow.names)})")
            rows = (row for batch in file.iter_batches(ROWS) for row in batch.to_pylist())
            yield from (Raw(f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
