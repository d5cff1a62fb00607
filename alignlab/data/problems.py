"""Problems: records that cannot be used, by kind, with the count of each kind and the place of its first record.

If a message named only the first of a hundred bad records, finding them all would take a hundred runs. Everything that
reads or tokenises records therefore collects its complaints here, and raises once.
"""

import re
from dataclasses import dataclass, field

from alignlab.errors import DataError

MOST_KINDS = 12
"""Kinds that a message lists; more are counted only."""

_QUOTED = re.compile(r"""(?<!field )(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""", re.DOTALL)
_NUMBER = re.compile(r"\d+")


@dataclass
class Problem:
    """One kind of problem.

    Args:
        where: the first record's place: file and line.
        what: what is wrong with the first one.
        count: how many records have it.
    """

    where: str
    what: str
    count: int = 0

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f" ({self.count} such)" if self.count > 1 else "")


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
        found = self.kinds.setdefault(kind or kind_of(what), Problem(where, what))
        found.count += 1

    def update(self, others: "Problems") -> None:
        """Add those of another collection."""
        for kind, problem in others.kinds.items():
            mine = self.kinds.setdefault(kind, Problem(problem.where, problem.what))
            mine.count += problem.count

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
