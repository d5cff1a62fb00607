"""Raw: one record as it stands in a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Raw:
    """One record as it stands in a file.

    Args:
        where: file and line (or row), for messages.
        fields: its columns; empty where there is a problem.
        problem: why it could not be parsed; empty where it could.
        table: it is a row of CSV or TSV, whose cells are all text: a list in one was written into it.
        note: how the file was read, where that is not evident; the same for all its records.
    """

    where: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    table: bool = False
    note: str = ""
