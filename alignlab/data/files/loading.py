"""From the files of one role to its records: shapes recognised, bad records refused or counted, the split drawn.

Records of small files are in memory. Those of large ones are written to the cache while they are read, and are the same
records in the same order.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignlab.artifact import write_json
from alignlab.data.cache import Cache, Tell
from alignlab.data.conversations import prompt_key, text_key
from alignlab.data.files import formats, opening, reading
from alignlab.data.files.fields import REMEDY, BadRecordError, Fields
from alignlab.data.files.formats import Record, Role, Shape
from alignlab.data.files.loaded import FileSeen, Loaded, Tally
from alignlab.data.files.raw import Raw
from alignlab.data.records import Document
from alignlab.data.split import parted, place_of
from alignlab.errors import DataError

if TYPE_CHECKING:  # numpy is imported where files are large
    from alignlab.data.stored import RecordWriter

LARGE: Final = 2**24
"""Bytes of a role's files from which its records are not held in memory."""
HEAD: Final = 4096
"""Records by whose columns a shape is recognised, where no later record could change it."""
NOTES: Final = "notes.json"
_REPORTED: Final = 2**20
"""Bytes between two reports of progress."""


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

    def load(self, paths: Sequence[Path], cache: Cache, digest: Callable[[Path], str]) -> Loaded[Record]:
        """All records of the files, split.

        Args:
            paths: of the files.
            cache: keeps the records of large files.
            digest: of a file's content.

        Raises:
            DataError: a file cannot be read or fits no shape, records are bad (and `skip` is off; all of them are in
                the message), or none is left.
        """
        size = sum(opening.size(path) for path in paths)
        return self._held(paths) if size < LARGE else self._stored(paths, size, cache, digest)

    def _held(self, paths: Sequence[Path]) -> Loaded[Record]:
        tally, records, places = Tally(), list[Record](), list[int]()
        for record, _, place in self._records(paths, tally):
            records.append(record)
            places.append(place)
        is_held_out = self._checked(tally, places, paths)
        held = [is_held_out(place) for place in places]
        validation = tuple(itertools.compress(records, held))
        train = tuple(itertools.compress(records, (not h for h in held)))
        notes = self._notes(tally, len(train), len(validation))
        return Loaded(train, validation, tuple(notes), frozenset(tally.carried))

    def _stored(self, paths: Sequence[Path], size: int, cache: Cache, digest: Callable[[Path], str]) -> Loaded[Record]:
        from alignlab.data.stored import RecordWriter, StoredRecords

        def build(folder: Path) -> None:
            what = f"reads {self.role} ({size >> 20} MB), once for all runs with this data"
            with cache.progress(what) as tell, RecordWriter(folder, paths) as writer:
                self._write(writer, folder, paths, size, tell)

        files = [[opening.suffix(path), digest(path)] for path in paths]
        identity: dict[str, Any] = {"records": 1, **asdict(self), "files": files}
        folder = cache.folder(identity, build)
        found = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        train: StoredRecords[Any] = StoredRecords(folder, "train", paths, cache, identity)
        validation: StoredRecords[Any] = StoredRecords(folder, "validation", paths, cache, identity)
        return Loaded(train, validation, tuple(found["notes"]), frozenset(found["carried"]))

    def places(self, records: Sequence[Record]) -> Sequence[int]:
        """The place of each of some records that were loaded, which decided its part."""
        if isinstance(records, tuple):
            return [self._place(record) for record in records]
        places: Sequence[int] = records.places  # type: ignore[attr-defined]  # StoredRecords
        return places

    def _place(self, record: Record) -> int:
        return place_of(split_key(record), self.split_seed) if self.validation_fraction else 0

    def _write(self, writer: "RecordWriter", folder: Path, paths: Sequence[Path], size: int, tell: Tell) -> None:
        tally, told, began = Tally(), 0, time.monotonic()
        for record, file, place in self._records(paths, tally):
            writer.add(record, file, place)
            if writer.bytes - told >= _REPORTED:
                told = writer.bytes
                rate = {"megabytes_per_second": told / 2**20 / max(time.monotonic() - began, 1e-3)}
                tell(min(told, size) >> 20, size >> 20, rate)
        is_held_out = self._checked(tally, writer.places, paths)
        held = sum(map(is_held_out, writer.places))
        notes = self._notes(tally, tally.count - held, held)
        writer.finish(is_held_out)
        write_json(folder / NOTES, {"notes": notes, "carried": sorted(tally.carried)})

    def _checked(self, tally: Tally, places: Sequence[int], paths: Sequence[Path]) -> Callable[[int], bool]:
        """Whether the records of a place are held out, once all are read.

        Raises:
            DataError: records are bad, none is left, or none can be held out.
        """
        if not self.skip:
            tally.bad.stop(REMEDY)
        if not tally.count:
            why = "; ".join([*tally.left_out.lines(), *tally.bad.lines()])
            raise DataError(f"{', '.join(map(str, paths))}: no usable record for {self.role}: {why}")
        if self.validation_fraction and min(places) == max(places):
            raise DataError(f"{', '.join(map(str, paths))}: {self._only_one(tally.count)}")
        return parted(places, self.validation_fraction)

    # ---- one file ----------------------------------------------------------------------------------------------------
    def _records(self, paths: Sequence[Path], tally: Tally) -> Iterator[tuple[Record, int, int]]:
        """Each record, the number of its file, and the place that decides its part."""
        for number, path in enumerate(paths):
            for record in self._read(path, tally):
                tally.count += 1
                yield record, number, self._place(record)

    def _read(self, path: Path, tally: Tally) -> Iterator[Record]:
        before, seen = tally.count, FileSeen()
        raws = self._raws(path)
        head = [seen.see(raw) for raw in itertools.islice(raws, HEAD)]
        shape = self._shape(path, head, seen.columns)
        for raw in itertools.chain(head, map(seen.see, raws)):
            try:
                yield from self._taken(raw, shape, tally)
            except BadRecordError as error:
                tally.bad.add(error.where, error.what, error.kind)
        tally.taken.append(f"{tally.count - before} from {path} as {shape}{self._remarks(seen, shape)}")
        tally.carried.update({*self.facts, *self._scores} & set(seen.columns))

    def _raws(self, path: Path) -> Iterator[Raw]:
        is_prompt = self.role == "prompts"
        return reading.read(
            path, lambda columns: formats.is_record(self.role, columns), self.document_characters, is_prompt
        )

    def _shape(self, path: Path, head: Sequence[Raw], columns: Mapping[str, None]) -> Shape:
        """The shape of a file, by the columns of its first records; by those of all where more could change it."""
        if self.shape is not None:
            return formats.named(self.role, self.shape)
        best = formats.SHAPES[self.role][0]
        if len(head) == HEAD and not set(best.columns) <= set(columns):
            whole = FileSeen()
            for raw in self._raws(path):
                whole.see(raw)
            columns = whole.columns
        broken = next((raw for raw in head if raw.problem), None)
        if not columns and broken:
            raise BadRecordError(broken.where, broken.problem)
        return formats.detect(self.role, list(columns), head[0].where)

    @property
    def _scores(self) -> tuple[str, ...]:
        return self.scores if self.role == "instructions" else ()

    def _remarks(self, seen: FileSeen, shape: Shape) -> str:
        """How the file was read, and what of it was not, in brackets."""
        used = formats.used_columns(self.role, shape, list(seen.columns)) | {*self.facts, *self._scores}
        unused = [c for c in seen.columns if c not in used]
        said = list(seen.notes)
        said += [f"columns not used: {', '.join(unused)}"] if unused else []
        return f" ({'; '.join(said)})" if said else ""

    def _taken(self, raw: Raw, shape: Shape, tally: Tally) -> list[Record]:
        """The records of a row that teach something; the others are counted."""
        fields = Fields(raw, tally.remarks)
        found = shape.read(fields)
        facts = () if self.role == "corpus" else fields.facts(self.facts)
        scores = fields.scores(self._scores)
        if not found:
            tally.left_out.add(raw.where, "no answer is learnt from (weight 0, or train false)")
        taken = []
        for record in found:
            fitted = formats.in_role(self.role, record)
            why = "answer called bad" if fitted is None else formats.teaches_nothing(fitted)
            if fitted is not None and not why:
                own = scores if record is found[-1] else {}  # a rating is of what a record ends with
                taken.append(formats.with_scores(formats.with_facts(fitted, facts), own))
            else:
                tally.left_out.add(record.source, why)
        return taken

    def _only_one(self, count: int) -> str:
        if self.role == "corpus":
            how = "add some, lower data.document_characters, or set data.validation_fraction=0"
            return f"only one document for corpus, so that none can be held out; {how}"
        same = f" in {count} records (system messages and later turns do not tell prompts apart)" if count > 1 else ""
        return (
            f"only one prompt for {self.role}{same}, so that none can be held out; add some, or set "
            f"data.validation_fraction=0"
        )

    def _notes(self, tally: Tally, train: int, validation: int) -> list[str]:
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
