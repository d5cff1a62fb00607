"""Problems: records that cannot be used, by kind, with the count of each kind and the places of its first records.

If a message named only the first of a hundred bad records, finding them all would take a hundred runs. Everything that
reads or tokenises records therefore collects its complaints here, and raises once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.errors import DataError

MOST_KINDS = 12
"""Kinds that a message lists; more are counted only."""

MOST_PLACES = 3
"""Places that a message lists of one kind."""

_QUOTED = re.compile(r"""(?<!field )(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""", re.DOTALL)
_NUMBER = re.compile(r"\d+")


@dataclass
class Problem:
    """One kind of problem.

    Args:
        where: the first record's place: file and line.
        what: what is wrong with the first one.
        count: how many records have it.
        others: places of the next few.
    """

    where: str
    what: str
    count: int = 0
    others: list[str] = field(default_factory=list)

    def add(self, places: Sequence[str], count: int = 1) -> None:
        """Count further records; their first places are given."""
        known = {self.where, *self.others}
        new = [place for place in dict.fromkeys(places) if place not in known] if count else []
        self.others += new[: MOST_PLACES - 1 - len(self.others)]
        self.count += count

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        if self.count < 2:
            return f"{place}{self.what}"
        more = f", next: {', '.join(self.others)}" if self.others else ""
        return f"{place}{self.what} ({self.count} such{more})"


@dataclass
class Problems:
    """Problems by kind, in the order in which they were found; false when there is none."""

    kinds: dict[str, Problem] = field(default_factory=dict)

    def add(self, where: str, what: str, kind: str = "") -> None:
        """Count one record.

        Args:
            where: its place.
            what: what is wrong, without what to do about it.
            kind: records of one kind are counted together; by default those whose `what` differs in quoted texts
                and numbers only.
        """
        self.kinds.setdefault(kind or kind_of(what), Problem(where, what)).add([where])

    def update(self, others: "Problems") -> None:
        """Add those of another collection."""
        for kind, problem in others.kinds.items():
            mine = self.kinds.setdefault(kind, Problem(problem.where, problem.what))
            mine.add([problem.where, *problem.others], problem.count)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Problems":
        """Those that `dataclasses.asdict` has made plain."""
        return cls({kind: Problem(**problem) for kind, problem in found["kinds"].items()})

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def __len__(self) -> int:
        return sum(p.count for p in self.kinds.values())

    def lines(self) -> list[str]:
        """One line per kind: the first place, what is wrong there, and how many such records there are."""
        shown = [str(p) for p in self.kinds.values()][:MOST_KINDS]
        more = len(self.kinds) - len(shown)
        return [*shown, f"and {more} more kinds of problem"] if more else shown

    def message(self, remedy: str) -> str:
        """Everything in one message, which ends with what to do."""
        lines = self.lines()
        if len(lines) == 1:
            return f"{lines[0]}; {remedy}"
        return "\n  ".join([f"{len(self)} records cannot be used:", *lines]) + f"\n{remedy}"

    def stop(self, remedy: str) -> None:
        """Raise `DataError` with everything that was found; do nothing where nothing was.

        Raises:
            DataError: there is a problem.
        """
        if self:
            raise DataError(self.message(remedy))


def fact_of(message: str) -> str:
    """The first clause of an error's message, without what to do about it: all before a semicolon outside quotes."""
    quoted = _QUOTED.sub(lambda text: "#" * len(text[0]), message)
    return message[: quoted.index("; ")] if "; " in quoted else message


def kind_of(what: str) -> str:
    """The complaint without quoted texts and numbers, which differ from record to record; names of fields are kept."""
    return _NUMBER.sub("#", _QUOTED.sub("…", what))
