"""From the files of one role to its records: shapes told, bad records stopped at or counted, the split drawn."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from alignlab.data.conversations import opening
from alignlab.data.files import formats, reading
from alignlab.data.files.fields import BadRecordError, Fields, bad_record
from alignlab.data.files.formats import Record, Role, Shape
from alignlab.data.files.reading import Raw
from alignlab.data.records import Document
from alignlab.errors import DataError

R = TypeVar("R")


@dataclass(frozen=True)
class Loaded(Generic[R]):
    """A role's records, and lines that say what was taken and what was left out."""

    train: tuple[R, ...]
    validation: tuple[R, ...]
    notes: tuple[str, ...]


@dataclass
class _Tally:
    """What was met on the way."""

    records: list[Record] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first_left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loader:
    """How the files of one role are read.

    Args:
        role: what the files are for.
        shape: its name; None detects it for each file.
        validation_fraction: of the prompts (texts), held out.
        split_seed: another seed holds out other records.
        skip: bad records are counted instead of stopping.
        document_characters: see `reading.documents`.
    """

    role: Role
    shape: str | None
    validation_fraction: float
    split_seed: int
    skip: bool
    document_characters: int | None

    def load(self, paths: Sequence[Path]) -> Loaded[Record]:
        """All records of the files, split.

        Raises:
            DataError: a file cannot be read or fits no shape, a record is bad (and `skip` is off), or none is left.
        """
        tally = _Tally()
        for path in paths:
            self._read(path, tally)
        if not tally.records:
            why = [f"{n} {what}" for what, n in tally.left_out.items()] + tally.bad[:1]
            raise DataError(f"{', '.join(map(str, paths))}: no usable record for {self.role} ({'; '.join(why)})")
        train, validation = self._split(tally.records, paths)
        return Loaded(tuple(train), tuple(validation), tuple(self._notes(tally, len(train), len(validation))))

    def _read(self, path: Path, tally: _Tally) -> None:
        raws = reading.read(path, self.document_characters)
        shape = self._shape(raws)
        before = len(tally.records)
        for raw in raws:
            try:
                self._take(shape.read(Fields(raw)), tally)
            except BadRecordError as error:
                if not self.skip:
                    raise
                tally.bad.append(str(error))
        unused = [c for c in _columns(raws) if c not in (*shape.columns, *shape.optional, formats.SYSTEM)]
        left = f" (columns not used: {', '.join(unused)})" if unused else ""
        tally.taken.append(f"{len(tally.records) - before} from {path} as {shape}{left}")

    def _shape(self, raws: Sequence[Raw]) -> Shape:
        if self.shape is not None:
            return formats.named(self.role, self.shape)
        columns = _columns(raws)
        broken = next((raw for raw in raws if raw.problem), None)
        if not columns and broken:
            raise bad_record(broken.where, broken.problem)
        return formats.detect(self.role, columns, raws[0].where)

    def _take(self, records: Sequence[Record], tally: _Tally) -> None:
        for record in records:
            fitted = formats.in_role(self.role, record)
            why = "answer called bad" if fitted is None else formats.teaches_nothing(fitted)
            if fitted is not None and not why:
                tally.records.append(fitted)
            else:
                tally.left_out[why] += 1
                tally.first_left_out.setdefault(why, record.source)

    def _split(self, records: list[Record], paths: Sequence[Path]) -> tuple[list[Record], list[Record]]:
        """Train and validation. Where the hashes leave one of them empty, the record nearest to it is moved over."""
        keys = [_key(r) for r in records]
        place = {key: _uniform(key, self.split_seed) for key in keys}
        if self.validation_fraction == 0:
            return records, []
        if len(place) < 2:
            raise DataError(
                f"{', '.join(map(str, paths))}: only one {'document' if self.role == 'corpus' else 'prompt'} for "
                f"{self.role}, so that none can be held out; add some, "
                f"{'lower data.document_characters, ' if self.role == 'corpus' else ''}"
                f"or set data.validation_fraction=0"
            )
        ranked = sorted(place, key=lambda key: place[key])
        held = {key for key in ranked if place[key] < self.validation_fraction} or {ranked[0]}
        held -= {ranked[-1]}
        train = [r for r, key in zip(records, keys, strict=True) if key not in held]
        return train, [r for r, key in zip(records, keys, strict=True) if key in held]

    def _notes(self, tally: _Tally, train: int, validation: int) -> list[str]:
        what = "documents" if self.role == "corpus" else "records"
        notes = [f"{self.role}: {train} {what} to train on and {validation} held out: {'; '.join(tally.taken)}"]
        for why, count in tally.left_out.items():
            notes.append(f"{self.role}: {count} left out, {why} (first: {tally.first_left_out[why]})")
        if tally.bad:
            notes.append(f"{self.role}: {len(tally.bad)} bad records skipped; the first: {tally.bad[0]}")
        return notes


def _columns(raws: Sequence[Raw]) -> list[str]:
    """The columns that hold anything, in the order in which they are met."""
    return list(dict.fromkeys(str(k) for raw in raws for k, v in raw.fields.items() if v is not None))


def _key(record: Record) -> str:
    """What the split goes by: a document's text, or the opening of the conversation that is answered."""
    return record.text if isinstance(record, Document) else opening(record.prompt)


def _uniform(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing else."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
