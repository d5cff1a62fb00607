"""TokenShards: tokenised rows in files that are mapped into memory instead of being read."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

TOKENS, ENDS, CONTEXTS, RECORDS, META = "tokens.bin", "ends.bin", "contexts.bin", "records.bin", "shards.json"
INDEX: Final = {ENDS: "<u8", CONTEXTS: "<u4", RECORDS: "<u8"}
"""Files with one number per row, and their types."""
Numbers: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


def type_for(vocabulary: int) -> str:
    """The smallest unsigned integer that holds the token ids 0 to `vocabulary` - 1."""
    return next(f"<u{size}" for size in (1, 2, 4, 8) if vocabulary <= 2 ** (8 * size))


@dataclass(frozen=True)
class Packed:
    """Some rows as arrays.

    Args:
        tokens: ids of all rows, one after another.
        lengths: tokens of each row.
        contexts: tokens of each row that come before the scored ones, which are all that follow.
        records: number of the record that each row is made of.
    """

    tokens: Numbers
    lengths: Numbers
    contexts: Numbers
    records: Numbers

    @classmethod
    def of(cls, rows: Sequence[tuple[Sequence[int], Sequence[bool], int]], kind: str) -> "Packed":
        """Rows of tokens, masks and record numbers; `kind` is the type of the tokens.

        Raises:
            ValueError: a token that is not scored comes after one that is.
        """
        contexts = [_context(mask) for _, mask, _ in rows]
        return cls(
            np.array([t for tokens, _, _ in rows for t in tokens], dtype=kind),
            np.array([len(tokens) for tokens, _, _ in rows], dtype=np.uint64),
            np.array(contexts, dtype=INDEX[CONTEXTS]),
            np.array([record for _, _, record in rows], dtype=INDEX[RECORDS]),
        )


def _context(mask: Sequence[bool]) -> int:
    scored = sum(mask)
    if any(mask[: len(mask) - scored]):
        raise ValueError("TokenShards: the scored tokens of a row must be its last ones")
    return len(mask) - scored


class ShardWriter(contextlib.AbstractContextManager["ShardWriter"]):
    """Writes token shards within its context, rows in the order in which they are added; none of them stays in memory.

    Args:
        folder: to write into; it exists.
        kind: type of a token, see `type_for`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self.rows = self.tokens = 0
        self._files = {name: (folder / name).open("wb") for name in (TOKENS, *INDEX)}

    def add(self, rows: Packed) -> None:
        """Append rows."""
        ends = self.tokens + rows.lengths.cumsum(dtype=np.uint64)
        for name, values in ((TOKENS, rows.tokens), (ENDS, ends), (CONTEXTS, rows.contexts), (RECORDS, rows.records)):
            self._files[name].write(values.astype(INDEX.get(name, self._kind), copy=False).tobytes())
        self.rows += len(rows.lengths)
        self.tokens += len(rows.tokens)

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        meta = {"rows": self.rows, "tokens": self.tokens, "type": self._kind}
        (self._folder / META).write_text(json.dumps(meta), encoding="utf-8")


class TokenShards:
    """Rows of token ids on disk, one after another, any of which is read without the others.

    `tokens.bin` holds the ids, each in the smallest little-endian unsigned integer for the vocabulary. Of each row,
    `ends.bin` has the number of the token after its last one (its first token follows the row before), `contexts.bin`
    how many of its tokens come before the scored ones, and `records.bin` which record it is made of. The files are
    mapped: what is read of them lies in the operating system's page cache, which it can take back at any time, and
    none of it in the memory of the process. A copy in another process opens the same files.

    Args:
        folder: that a `ShardWriter` has written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        self.tokens: int = meta["tokens"]
        """Of all rows."""
        self._rows: int = meta["rows"]
        self._tokens = _mapped(folder / TOKENS, meta["type"], self.tokens)
        self._ends, self._contexts, self._records = (_mapped(folder / n, kind, self._rows) for n, kind in INDEX.items())

    def __reduce__(self) -> tuple[type["TokenShards"], tuple[Path]]:
        return TokenShards, (self.folder,)

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> tuple[list[int], list[bool]]:
        """Tokens of a row, and whether each is scored."""
        start, end = (int(self._ends[index - 1]) if index else 0), int(self._ends[index])
        context = int(self._contexts[index])
        return self._tokens[start:end].tolist(), [False] * context + [True] * (end - start - context)

    def record(self, index: int) -> int:
        """Number of the record that a row is made of."""
        return int(self._records[index])


def _mapped(file: Path, kind: str, count: int) -> Numbers:
    """The numbers of a file; an empty one cannot be mapped.

    Raises:
        ValueError: the file holds fewer numbers than it should.
    """
    return np.memmap(file, dtype=kind, mode="r", shape=(count,)) if count else np.empty(0, kind)
