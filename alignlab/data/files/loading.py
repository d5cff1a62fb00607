"""From the files of one role to its records: shapes recognised, bad records refused or counted, the split drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from alignlab.data.conversations import prompt_key, text_key
from alignlab.data.files import formats, reading
from alignlab.data.files.fields import REMEDY, BadRecordError, Fields
from alignlab.data.files.formats import Record, Role, Shape
from alignlab.data.files.raw import Raw
from alignlab.data.problems import Problems
from alignlab.data.records import Document
from alignlab.data.split import held_out
from alignlab.errors import DataError

R = TypeVar("R")


@dataclass(frozen=True)
class Loaded(Generic[R]):
    """A role's records.

    Args:
        train: to learn from.
        validation: held out.
        notes: lines that say what was taken and what was left out.
        carried: the columns of `data.facts` and `data.scores` that its files have.
    """

    train: tuple[R, ...]
    validation: tuple[R, ...]
    notes: tuple[str, ...]
    carried: frozenset[str] = frozenset()

    def keys(self, split: str) -> dict[str, str]:
        """Split key of each record of one part, and the place of the first record with it."""
        found: dict[str, str] = {}
        for record in self.train if split == "train" else self.validation:
            found.setdefault(split_key(record), record.source)  # type: ignore[arg-type, attr-defined]  # R is a Record
        return found


@dataclass
class _Tally:
    """Records and complaints so far."""

    records: list[Record] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    bad: Problems = field(default_factory=Problems)
    left_out: Problems = field(default_factory=Problems)
    remarks: Problems = field(default_factory=Problems)
    carried: set[str] = field(default_factory=set)


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
        facts: columns that are carried along with each prompt.
        scores: columns that are numbers on the (last) answer of each record of instructions.
    """

    role: Role
    shape: str | None
    validation_fraction: float
    split_seed: int
    skip: bool
    document_characters: int | None
    facts: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()

    def load(self, paths: Sequence[Path]) -> Loaded[Record]:
        """All records of the files, split.

        Raises:
            DataError: a file cannot be read or fits no shape, records are bad (and `skip` is off; all of them are in
                the message), or none is left.
        """
        tally = _Tally()
        for path in paths:
            self._read(path, tally)
        if not self.skip:
            tally.bad.stop(REMEDY)
        if not tally.records:
            why = "; ".join([*tally.left_out.lines(), *tally.bad.lines()])
            raise DataError(f"{', '.join(map(str, paths))}: no usable record for {self.role}: {why}")
        train, validation = self._split(tally.records, paths)
        notes = self._notes(tally, len(train), len(validation))
        return Loaded(tuple(train), tuple(validation), tuple(notes), frozenset(tally.carried))

    def _read(self, path: Path, tally: _Tally) -> None:
        is_prompt = self.role == "prompts"
        raws = reading.read(
            path, lambda columns: formats.is_record(self.role, columns), self.document_characters, is_prompt
        )
        columns = _columns(raws)
        shape = self._shape(raws, columns)
        before = len(tally.records)
        for raw in raws:
            try:
                self._take(raw, shape, tally)
            except BadRecordError as error:
                tally.bad.add(error.where, error.what, error.kind)
        tally.taken.append(f"{len(tally.records) - before} from {path} as {shape}{self._remarks(raws, columns, shape)}")
        tally.carried.update({*self.facts, *self._scores} & set(columns))

    @property
    def _scores(self) -> tuple[str, ...]:
        return self.scores if self.role == "instructions" else ()

    def _shape(self, raws: Sequence[Raw], columns: Sequence[str]) -> Shape:
        if self.shape is not None:
            return formats.named(self.role, self.shape)
        broken = next((raw for raw in raws if raw.problem), None)
        if not columns and broken:
            raise BadRecordError(broken.where, broken.problem)
        return formats.detect(self.role, columns, raws[0].where)

    def _remarks(self, raws: Sequence[Raw], columns: Sequence[str], shape: Shape) -> str:
        """How the file was read, and what of it was not, in brackets."""
        used = formats.used_columns(self.role, shape, columns) | {*self.facts, *self._scores}
        unused = [c for c in columns if c not in used]
        said = list(dict.fromkeys(raw.note for raw in raws if raw.note))
        said += [f"columns not used: {', '.join(unused)}"] if unused else []
        return f" ({'; '.join(said)})" if said else ""

    def _take(self, raw: Raw, shape: Shape, tally: _Tally) -> None:
        fields = Fields(raw, tally.remarks)
        found = shape.read(fields)
        facts = () if self.role == "corpus" else fields.facts(self.facts)
        scores = fields.scores(self._scores)
        if not found:
            tally.left_out.add(raw.where, "no answer is learnt from (weight 0, or train false)")
        for record in found:
            fitted = formats.in_role(self.role, record)
            why = "answer called bad" if fitted is None else formats.teaches_nothing(fitted)
            if fitted is not None and not why:
                own = scores if record is found[-1] else {}  # a rating is of what a record ends with
                tally.records.append(formats.with_scores(formats.with_facts(fitted, facts), own))
            else:
                tally.left_out.add(record.source, why)

    def _split(self, records: list[Record], paths: Sequence[Path]) -> tuple[list[Record], list[Record]]:
        """Train and validation. Where the hashes leave one of them empty, the record nearest to it is moved over."""
        if self.validation_fraction == 0:
            return records, []
        keys = [split_key(r) for r in records]
        if len(set(keys)) < 2:
            raise DataError(f"{', '.join(map(str, paths))}: {self._only_one(len(records))}")
        held = held_out(keys, self.validation_fraction, self.split_seed)
        train = [r for r, key in zip(records, keys, strict=True) if key not in held]
        return train, [r for r, key in zip(records, keys, strict=True) if key in held]

    def _only_one(self, count: int) -> str:
        if self.role == "corpus":
            how = "add some, lower data.document_characters, or set data.validation_fraction=0"
            return f"only one document for corpus, so that none can be held out; {how}"
        same = f" in {count} records (system messages and later turns do not tell prompts apart)" if count > 1 else ""
        return (
            f"only one prompt for {self.role}{same}, so that none can be held out; add some, or set "
            f"data.validation_fraction=0"
        )

    def _notes(self, tally: _Tally, train: int, validation: int) -> list[str]:
        what = "documents" if self.role == "corpus" else "records"
        notes = [f"{self.role}: {train} {what} to train on and {validation} held out: {'; '.join(tally.taken)}"]
        for what, names in (("prompts", self.facts), ("answers", self._scores)):
            if carried := sorted(tally.carried & set(names)):
                notes[0] += f"; carried with the {what}: {', '.join(carried)}"
        for problem in tally.left_out.kinds.values():
            notes.append(f"{self.role}: {problem.count} left out, {problem.what} (first: {problem.where})")
        for problem in tally.remarks.kinds.values():
            notes.append(f"{self.role}: {problem.what}: {problem.count} times (first: {problem.where})")
        if tally.bad:
            notes.append(f"{self.role}: {len(tally.bad)} bad records skipped: {'; '.join(tally.bad.lines())}")
        return notes


def split_key(record: Record) -> str:
    """Key that decides a record's part: that of a document's text, or of the prompt that is answered."""
    return text_key(record.text) if isinstance(record, Document) else prompt_key(record.prompt)


def _columns(raws: Sequence[Raw]) -> list[str]:
    """The columns that hold anything, in the order in which they are met."""
    return list(dict.fromkeys(str(k) for raw in raws for k, v in raw.fields.items() if v is not None and v == v))
