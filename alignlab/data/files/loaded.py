"""Records of one role, and the counts of reading its files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from alignlab.data.files.raw import Raw
from alignlab.data.problems import Problems

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

    train: Sequence[R]
    validation: Sequence[R]
    notes: tuple[str, ...]
    carried: frozenset[str]


@dataclass
class Tally:
    """Counts and complaints so far."""

    count: int = 0
    taken: list[str] = field(default_factory=list)
    bad: Problems = field(default_factory=Problems)
    left_out: Problems = field(default_factory=Problems)
    remarks: Problems = field(default_factory=Problems)
    carried: set[str] = field(default_factory=set)


@dataclass
class FileSeen:
    """Observations on one file so far: columns that hold anything, in the order in which they are met; its notes."""

    columns: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def see(self, raw: Raw) -> Raw:
        """The record, once its columns and its note are known."""
        for key, value in raw.fields.items():
            if key not in self.columns and value is not None and value == value:
                self.columns[str(key)] = None
        if raw.note:
            self.notes[raw.note] = None
        return raw
