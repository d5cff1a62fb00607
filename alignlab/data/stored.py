"""Records of large files in one file of their own, from which any of them is read without the others.

Files of all kinds (text, JSON, tables, compressed ones) end up in the same form: it is read by several processes at
once, from any record on, and holds only what passed every check.
"""

import contextlib
import json
import os
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from alignlab.data.cache import Cache
from alignlab.data.itemwise import Itemwise
from alignlab.data.records import Asked, Comparison, Document, Example, Labelled, Message, Prompt, Ranking
from alignlab.data.source import Split

Record = Document | Asked | Example | Comparison | Ranking | Labelled
R = TypeVar("R", bound=Record)

RECORDS, ENDS, PLACES = "records.bin", "ends.npy", "places.npy"
_ENCODING: Any = {"encoding": "utf-8", "errors": "surrogatepass"}
"""Facts may hold halves of characters."""


class RecordWriter(contextlib.AbstractContextManager["RecordWriter"]):
    """Writes records within its context, in the order in which they are added.

    Of each, 16 bytes stay in memory, `places` among them.

    Args:
        folder: to write into; it exists.
        paths: files that the records come from.
    """

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self._folder, self._paths = folder, [str(p) for p in paths]
        self._file = (folder / RECORDS).open("wb")
        self._ends, self.places = array("Q"), array("Q")
        self.bytes = 0

    def add(self, record: Record, file: int, place: int) -> None:
        """Append a record.

        Args:
            record: to write.
            file: number of the file that it comes from.
            place: number that decides its part, see `alignlab.data.split`.
        """
        kind, body, known = _written(record)
        # Where a file lies does not matter: the records may be found again by a run whose file lies elsewhere.
        head = [kind, file, record.source.removeprefix(self._paths[file]), known]
        line = "\t".join(json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in (head, body))
        self.bytes += self._file.write(line.encode(**_ENCODING))
        self._ends.append(self.bytes)
        self.places.append(place)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def finish(self, is_held_out: Callable[[int], bool]) -> None:
        """Write the index of each part.

        Args:
            is_held_out: whether the records of a place are.
        """
        held = np.fromiter(map(is_held_out, self.places), dtype=bool, count=len(self.places))
        np.save(self._folder / ENDS, np.frombuffer(self._ends, dtype=np.uint64))
        np.save(self._folder / PLACES, np.frombuffer(self.places, dtype=np.uint64))
        for split, index in (("train", np.flatnonzero(~held)), ("validation", np.flatnonzero(held))):
            np.save(self._folder / f"{split}.npy", index.astype(np.uint64))


@dataclass(frozen=True)
class Head:
    """Part of a record that its rows carry.

    Args:
        source: where the record came from.
        notes: numbers on it.
    """

    source: str
    notes: Mapping[str, float]


class StoredRecords(Itemwise[R]):
    """One part of the records that a `RecordWriter` has written, each read when it is asked for.

    A copy, also in another process, opens the same files.

    Args:
        folder: with the files.
        split: the part.
        paths: files that the records come from, where they lie now.
        cache: for what is made of the records.
        identity: everything that their contents follow from.
    """

    def __init__(
        self, folder: Path, split: Split, paths: Sequence[Path], cache: Cache, identity: Mapping[str, Any]
    ) -> None:
        self._arguments = folder, split, tuple(paths), cache, identity
        self._paths = [str(p) for p in paths]
        self.cache = cache
        self.identity = {**identity, "part": split}
        self._index = np.load(folder / f"{split}.npy", mmap_mode="r")
        self._ends = np.load(folder / ENDS, mmap_mode="r")
        self._places = np.load(folder / PLACES, mmap_mode="r")
        self._file = os.open(folder / RECORDS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[type["StoredRecords[R]"], tuple[Any, ...]]:
        return StoredRecords, self._arguments

    def __len__(self) -> int:
        return len(self._index)

    def item(self, index: int) -> R:
        """Read now."""
        head, body = self._lines(index)
        kind, file, where, known = json.loads(head)
        return cast(R, _read(kind, json.loads(body), self._paths[file] + where, known))

    def head(self, index: int) -> Head:
        """Part of a record that its rows carry, without reading its text."""
        _, file, where, known = json.loads(self._lines(index)[0])
        return Head(self._paths[file] + where, known)

    @property
    def places(self) -> Sequence[int]:
        """Number of each record that decided its part."""
        return cast(Sequence[int], self._places[self._index].tolist())

    def portions(self, size: int) -> Iterator[range]:
        """The numbers of the records in order, in portions of about `size` bytes."""
        if not len(self):
            return
        ends = self._ends[self._index]
        starts = np.where(self._index > 0, self._ends[np.maximum(self._index, 1) - 1], 0)
        filled = (ends - starts).cumsum()
        cuts = np.searchsorted(filled, np.arange(size, int(filled[-1]), size, dtype=np.uint64)) + 1
        bounds = np.unique([0, *cuts, len(self)]).tolist()
        yield from map(range, bounds, bounds[1:])

    @property
    def bytes(self) -> int:
        """Of the records of both parts."""
        return int(self._ends[-1])

    def _lines(self, index: int) -> list[str]:
        start, end = self._span(int(self._index[index]))
        return os.pread(self._file, end - start, start).decode(**_ENCODING).split("\t")

    def _span(self, number: int) -> tuple[int, int]:
        return int(self._ends[number - 1]) if number else 0, int(self._ends[number])


# ---- records as JSON -------------------------------------------------------------------------------------------------
def _written(record: Record) -> tuple[str, Any, Mapping[str, float]]:
    """Kind of a record, all of it but its source and notes, and its notes."""
    kind = type(record).__name__
    if isinstance(record, Document):
        return kind, record.text, {}
    prompt = [[[m.role, m.content] for m in record.prompt.messages], record.prompt.facts]
    if isinstance(record, Example):
        return kind, [prompt, record.answer, record.kind], record.scores
    if isinstance(record, Asked):
        return kind, [prompt], {}
    if isinstance(record, Comparison):
        return kind, [prompt, record.chosen, record.rejected], record.notes
    return kind, [prompt, *(record.answers if isinstance(record, Ranking) else (record.answer, record.good))], {}


def _read(kind: str, body: Any, source: str, known: Mapping[str, float]) -> Record:
    if kind == "Document":
        return Document(body, source)
    (messages, facts), *rest = body
    prompt = Prompt(tuple(Message(role, content) for role, content in messages), tuple((k, v) for k, v in facts))
    if kind == "Asked":
        return Asked(prompt, source)
    if kind == "Example":
        answer, group = rest
        return Example(prompt, answer, group, source, known)
    if kind == "Comparison":
        chosen, rejected = rest
        return Comparison(prompt, chosen, rejected, source, known)
    if kind == "Ranking":
        return Ranking(prompt, tuple(rest), source)
    answer, good = rest
    return Labelled(prompt, answer, good, source)
