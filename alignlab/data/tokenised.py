"""Records to rows: in memory where the records are, and in token shards, each made once, where the records are stored.

Which of the two it is follows from the records; the rows are the same ones, made by the same encoder.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from alignlab.artifact import write_json
from alignlab.data.cache import Tell
from alignlab.data.encoding import Encoder
from alignlab.data.itemwise import Itemwise
from alignlab.data.parallel import in_order
from alignlab.data.problems import fact_of
from alignlab.data.stored import StoredRecords
from alignlab.data.token_shards import Packed, ShardWriter, TokenShards, type_for
from alignlab.data.truncation import REMEDY, Encode, Row, Sourced, Truncation
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import DataError

T = TypeVar("T", bound=Sourced)
R = TypeVar("R")

PORTION = 2**20
"""Bytes of records that are tokenised in one go."""
COUNTS = "counts.json"


def settled(
    parts: Sequence[Sequence[T]], encode: Encode[T, R], what: str, truncation: Truncation, skip: bool = False
) -> list[Sequence[R]]:
    """The rows of each part of a stage's records, the part to learn from first; problems of all parts are collected.

    Args:
        parts: records to learn from, then held-out ones.
        encode: makes the units of a record with its name, none to leave it out; its `DataError` says why a record
            cannot be used.
        what: a record is called, for messages.
        truncation: that `encode` cuts and counts with.
        skip: leave out what cannot be used; otherwise it is an error.

    Raises:
        DataError: some records cannot be used (and `skip` is off; all are in the message), or nothing is left to learn
            from.
    """
    earlier = truncation.kept
    found = [collected(part, encode, what, truncation) for part in parts]
    if not skip:
        truncation.problems.stop(REMEDY)
    if not earlier and not found[0]:
        why = truncation.describe(f"{what}s") or "there was none"
        raise DataError(f"no {what} is left of {len(parts[0])} to learn from; {why}")
    truncation.emptied += sum(len(records) for records, rows in zip(parts, found, strict=True) if not rows)
    return found


def collected(records: Sequence[T], encode: Encode[T, R], what: str, truncation: Truncation) -> Sequence[R]:
    """The units of those records that can be used; the others are counted in `truncation`."""
    if isinstance(records, StoredRecords) and isinstance(encode, Encoder):
        return _stored(records, encode, what, truncation)
    return [unit for _, units in _encoded(records, range(len(records)), encode, what, truncation) for unit in units]


def _encoded(
    records: Sequence[T], numbers: range, encode: Encode[T, R], what: str, truncation: Truncation
) -> Iterator[tuple[int, Sequence[R]]]:
    """Number and units of each record that can be used."""
    truncation.records += len(numbers)
    for number in numbers:
        record = records[number]
        name = record.source or f"{what} {number}"
        try:
            units = encode(record, name)
        except DataError as error:
            truncation.problems.add(name, fact_of(str(error)))
        else:
            truncation.kept += bool(units)
            yield number, units


# ---- in token shards -------------------------------------------------------------------------------------------------
class StoredRows(Itemwise[R]):
    """The units of stored records; each is read from the shards when it is asked for.

    Args:
        shards: the rows of all units.
        records: that they are made of.
        encode: made them.
    """

    def __init__(self, shards: TokenShards, records: StoredRecords[Any], encode: Encoder[Any, R]) -> None:
        self._shards, self._records, self._encode = shards, records, encode

    @property
    def tokens(self) -> int:
        """Of all units."""
        return self._shards.tokens

    def __len__(self) -> int:
        return len(self._shards) // len(self._encode.NAMES)

    def item(self, index: int) -> R:
        """Read now."""
        names = self._encode.NAMES
        first = index * len(names)
        head = self._records.head(self._shards.record(first))
        rows = [Row(*self._shards.row(first + n), head.source + name, head.notes) for n, name in enumerate(names)]
        return self._encode.unit(rows)


def num_tokens(rows: Sequence[Row]) -> int:
    """Tokens of some rows."""
    return rows.tokens if isinstance(rows, StoredRows) else sum(len(row.tokens) for row in rows)


def _stored(records: StoredRecords[Any], encode: Encoder[Any, R], what: str, truncation: Truncation) -> StoredRows[R]:
    cls = type(encode)
    identity = {
        "rows": 1,
        "records": records.identity,
        "encoder": f"{cls.__module__}.{cls.__qualname__}",
        "tokenizer": tokenizer_digest(encode.tokenizer),
        "max_length": encode.truncation.max_length,
        "versions": [version("tokenizers"), version("transformers")],
    }

    def build(folder: Path) -> None:
        with records.cache.progress(f"tokenises {len(records)} {what}s, once for all runs with this data") as tell:
            _write(folder, records, encode, what, tell)

    folder = records.cache.folder(identity, build)
    truncation.update(Truncation.of_json(json.loads((folder / COUNTS).read_text(encoding="utf-8"))))
    return StoredRows(TokenShards(folder), records, encode)


def _write(folder: Path, records: StoredRecords[Any], encode: Encoder[Any, Any], what: str, tell: Tell) -> None:
    """Tokenise all records, in several processes where there are many; the files do not depend on how many."""
    # Not `len(tokenizer)`: ids may have gaps.
    kind = type_for(1 + max(encode.tokenizer.get_vocab().values()))
    total, began = Truncation(encode.truncation.max_length), time.monotonic()
    work = (records, encode.afresh(), what, kind)
    with ShardWriter(folder, kind) as writer:
        for last, packed, counts in in_order(_packed, work, records.portions(PORTION), records.bytes):
            writer.add(packed)
            total.update(counts)
            tell(last, len(records), {"tokens_per_second": writer.tokens / max(time.monotonic() - began, 1e-3)})
    write_json(folder / COUNTS, total.as_json())


def _packed(
    work: tuple[StoredRecords[Any], Encoder[Any, Any], str, str], numbers: range
) -> tuple[int, Packed, Truncation]:
    """The rows of some records as arrays, and an account of them; runs in a worker."""
    records, encode, what, kind = work
    encode = encode.afresh()
    found = _encoded(records, numbers, encode, what, encode.truncation)
    rows = [(r.tokens, r.mask, number) for number, units in found for unit in units for r in encode.rows(unit)]
    return numbers.stop, Packed.of(rows, kind), encode.truncation


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of everything that decides which tokens a tokenizer and its chat template make of a text."""
    state: dict[str, Any] = {
        "template": tokenizer.chat_template,
        "special": {k: str(v) for k, v in tokenizer.special_tokens_map.items()},
        "ids": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python: its class and vocabulary
        added = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items()}
        state["tokenizer"] = [type(tokenizer).__qualname__, tokenizer.get_vocab(), added, repr(tokenizer.init_kwargs)]
    else:
        # Padding and truncation are those of the last call.
        state["tokenizer"] = {**json.loads(backend.to_str()), "padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
