"""Files as lines of text: opened, decompressed, and refused where the content is not what the name says."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alignlab.errors import DataError

TEXT = (".txt", ".text", ".md")
LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
KNOWN = (*TEXT, *LINES, ".json", *TABLES, ".parquet")
"""Suffixes that are read; all but parquet also with `.gz` behind them."""
PACKED: Final = 4
"""How many times larger the content of a compressed file is taken to be."""
LONGEST_LINE: Final = 2**28
"""Characters of a line, or of a field of CSV; a longer one is not text but an archive that was blown up."""

_STRANGERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer instead of the data; fetch it with git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer instead of the data; fetch it with git annex get"),
    (b"PAR1", "a parquet file; name it .parquet"),
    (b"PK\x03\x04", "a zip archive or an Excel file; unpack it, or save the table as CSV"),
    (b"\x1f\x8b", "compressed with gzip; add .gz to its name"),
    (b"BZh91AY&SY", "compressed with bzip2; unpack it, or compress it with gzip"),
    (b"\xfd7zXZ", "compressed with xz; unpack it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it, or compress it with gzip"),
    (b"ARROW1", "an Arrow file; save it as parquet"),
    (b"SQLite format 3", "a SQLite database; export the table as CSV or JSON lines"),
    (b"\xff\xfe", "UTF-16, as PowerShell and Excel write it; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16; save it as UTF-8"),
)
"""First bytes of a file, and the kind of file that begins with them."""
_PAGES = (b"<!doctype", b"<html")


def suffix(path: Path) -> str:
    """Kind of file by its name, compression left out.

    Raises:
        DataError: no file of this kind is read.
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


def size(path: Path) -> int:
    """Bytes of a file's content; of a compressed one or a parquet file, an estimate."""
    packed = _packed(path) or suffix(path) == ".parquet"
    return path.stat().st_size * (PACKED if packed else 1)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Check a file, and let it be read within: what fails there is an error of the data.

    Raises:
        DataError: the file is missing, not what its name says, damaged or not UTF-8; the message names it.
    """
    check_exists(path)
    try:
        check_content(path)
        yield
    except UnicodeDecodeError as error:
        line = first_line_not_utf8(path)
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); is it complete?") from error


def check_exists(path: Path) -> None:
    """Raise `DataError` where there is no such file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it, or several as [a.jsonl,b.jsonl]")
    if not path.is_file():
        raise DataError(f"no such file: {path} (looked in {path.absolute().parent})")


def check_content(path: Path) -> None:
    """Refuse a file that begins as something else than its name says.

    Raises:
        DataError: it does; the message says what it is and what to do.
    """
    kind = suffix(path)
    with _stream(path) as stream:
        start = stream.read(64)
    for begin, what in _STRANGERS:
        if start.startswith(begin) and not (begin == b"PAR1" and kind == ".parquet"):
            raise DataError(f"{path} is {what}")
    if kind not in TEXT and start.lstrip().lower().startswith(_PAGES):
        raise DataError(f"{path} is a web page; download the file itself")
    if kind == ".parquet" and start and not start.startswith(b"PAR1"):
        raise DataError(f"{path} is not a parquet file; name it by what it holds: {', '.join(KNOWN)}")


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file, without their ends; a byte order mark is left out.

    Raises:
        DataError: a line is longer than any text.
        UnicodeDecodeError: the file is not UTF-8.
    """
    with _text(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE and not line.endswith("\n"):
                raise DataError(f"{path} has a line of more than {LONGEST_LINE} characters; save one record per line")
            yield line.removesuffix("\n")


def first_line_not_utf8(path: Path) -> int:
    """Number of the first line that is not UTF-8; 0 where every line is. A line is never held as a whole."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with _stream(path) as stream:
        chunk = b"\n"
        while chunk:
            chunk = stream.read(2**20)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].count(b"\n")
            line += chunk.count(b"\n")
    return 0


def _text(path: Path) -> io.TextIOWrapper:
    if _packed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _stream(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if _packed(path) else path.open("rb")


def _packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"
