"""Truncation: sequences cut to a length, and an account of what was cut and of what could not be used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from alignlab.data.problems import Problems
from alignlab.errors import DataError

REMEDY = (
    "raise max_length (or the model's context), shorten or correct them, or leave such records out with "
    "on_bad_record=skip (of the stage, or of data)"
)


@runtime_checkable
class Sourced(Protocol):
    """A record that says where it was read."""

    @property
    def source(self) -> str:
        """File and line, or ""."""


T = TypeVar("T", bound=Sourced)
R = TypeVar("R")
Encode: TypeAlias = Callable[[T, str], Sequence[R]]
"""Makes the units (rows, pairs of rows) of a record with a name; none leaves it out."""


@dataclass(frozen=True)
class Row:
    """One tokenised sequence.

    Args:
        tokens: token ids.
        mask: whether each token is scored.
        name: the record's, for messages.
        notes: numbers on the record: `Comparison.notes` (in both rows of a pair), `Example.scores`.
    """

    tokens: Sequence[int]
    mask: Sequence[bool]
    name: str = ""
    notes: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Truncation:
    """Counts what did not fit and what could not be used, over all parts of a stage's data.

    Args:
        max_length: tokens of the longest sequence.
        cut: records (pairs) that were cut short.
        kept: records (pairs) that became rows.
        records: all of them.
        emptied: held-out records of a part of which none is left.
        identical: pairs whose answers are the same tokens at this length; they would teach nothing and are left out.
        problems: records that cannot be used.
    """

    max_length: int
    cut: int = 0
    kept: int = 0
    records: int = 0
    emptied: int = 0
    identical: Problems = field(default_factory=Problems)
    problems: Problems = field(default_factory=Problems)

    def fit(self, row: Row) -> Row:
        """The row, cut at its end to `max_length` tokens; an error where no scored token would be left."""
        return self.fit_all([row])[0]

    def fit_all(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of one record, each cut at its end to `max_length` tokens; the record counts once.

        Raises:
            DataError: no scored token would be left of one of them.
        """
        found = [r if len(r.tokens) <= self.max_length else self._short(r) for r in rows]
        for row, short in zip(rows, found, strict=True):
            if not any(short.mask):
                raise DataError(self._cut_away(row))
        self.cut += any(len(row.tokens) > self.max_length for row in rows)
        return found

    def _short(self, row: Row) -> Row:
        return replace(row, tokens=row.tokens[: self.max_length], mask=row.mask[: self.max_length])

    def _cut_away(self, row: Row) -> str:
        if not any(row.mask):
            return "no token of it is scored"
        return (
            f"the whole answer is cut away: {list(row.mask).index(True)} tokens come before it and max_length is "
            f"{self.max_length}"
        )

    def update(self, other: "Truncation") -> None:
        """Add the counts of other records, which come after these."""
        for name in ("cut", "kept", "records", "emptied"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.identical.update(other.identical)
        self.problems.update(other.problems)

    def as_json(self) -> dict[str, Any]:
        """The counts as plain JSON."""
        return asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Truncation":
        """The counts that were written as JSON."""
        return cls(**{**found, **{k: Problems.of_json(found[k]) for k in ("identical", "problems")}})

    def describe(self, what: str) -> str:
        """One line for the reader, empty when everything fitted: how many were cut or left out, why, and the first."""
        parts = [f"{self.cut} cut short at {self.max_length} tokens"] if self.cut else []
        parts += [f"{p.count} left out, {p.what} (first: {p.where})" for p in self.identical.kinds.values()]
        parts += [f"{len(self.problems)} skipped: {'; '.join(self.problems.lines())}"] if self.problems else []
        parts += [f"none of the {self.emptied} held-out ones is left, so nothing is validated"] if self.emptied else []
        return f"of {self.records} {what}: {', '.join(parts)}" if parts else ""
