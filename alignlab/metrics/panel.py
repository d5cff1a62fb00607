"""Panel: a drawing, a table or a text that an evaluation adds to the report, as plain data.

The report draws it. Nothing in it is markup, and every text of it stays text. The sizes are bounded, so that the report
stays one small file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from alignlab.errors import ConfigError, suggestion
from alignlab.metrics.column import Column

SERIES, POINTS, ROWS, CELLS, LETTERS = 8, 300, 100, 12, 4000
"""Most series of a drawing, points of a series, rows of a table, cells of a row, and letters of a text."""


@dataclass(frozen=True)
class Point:
    """A point of a drawing.

    Args:
        x: place on the horizontal axis.
        y: place on the vertical axis.
        low: lower end of the interval of y; None where there is none.
        high: upper end.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        known = [v for v in (self.x, self.y, self.low, self.high) if v is not None]
        if not all(map(math.isfinite, known)):
            raise ValueError(f"Point: {self} has a number that is not finite; leave the point out")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"Point: an interval needs both ends, got low {self.low} and high {self.high}")


@dataclass(frozen=True)
class Points:
    """Points over two numeric axes; each model has its own drawing, all of them with the same axes.

    Args:
        series: points by name; a single one may be called "".
        x: title of the horizontal axis, with its unit.
        y: title of the vertical axis, with its unit.
        joined: whether the points of a series are joined by a line.
        diagonal: whether the line y = x is drawn, where both axes mean the same.
    """

    series: Mapping[str, Sequence[Point]]
    x: str
    y: str
    joined: bool = True
    diagonal: bool = False

    def check(self, owner: str) -> None:
        """Refuse what cannot be drawn."""
        if not any(self.series.values()):
            raise ValueError(f"{owner} has no points; leave the panel out")
        _check_size(owner, "series", len(self.series), SERIES)
        for name, points in self.series.items():
            _check_size(owner, f"points of {name!r}", len(points), POINTS)


@dataclass(frozen=True)
class Profile:
    """Shares of the evaluation, a line for each, with a dot for every model that has them.

    Args:
        metrics: names of declared metrics that are shares.
    """

    metrics: Sequence[str]

    def check(self, owner: str) -> None:
        """Refuse what cannot be drawn."""
        if not self.metrics:
            raise ValueError(f"{owner} names no metric; leave the panel out")
        _check_size(owner, "metrics", len(self.metrics), ROWS)


Cell: TypeAlias = str | float | None


@dataclass(frozen=True)
class Table:
    """A table; each model has its own.

    Args:
        columns: titles.
        rows: texts, numbers, and None for an empty cell; as many in each row as there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def check(self, owner: str) -> None:
        """Refuse what is not a table."""
        if not self.columns or not self.rows:
            raise ValueError(f"{owner} has no columns or no rows; leave the panel out")
        _check_size(owner, "columns", len(self.columns), CELLS)
        _check_size(owner, "rows", len(self.rows), ROWS)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{owner}: a row has {len(row)} cells, but there are {len(self.columns)} columns")
        for cell in (cell for row in self.rows for cell in row):
            if isinstance(cell, str):
                _check_size(owner, "letters of a cell", len(cell), LETTERS)
            elif cell is not None and not math.isfinite(cell):
                raise ValueError(f"{owner}: a cell is {cell}; None leaves it empty")


@dataclass(frozen=True)
class Text:
    """A text; each model has its own. Line breaks are kept, and nothing else in it has a meaning.

    Args:
        text: up to 4000 letters.
    """

    text: str

    def check(self, owner: str) -> None:
        """Refuse what is empty or too long."""
        if not self.text.strip():
            raise ValueError(f"{owner} has no text; leave the panel out")
        _check_size(owner, "letters", len(self.text), LETTERS)


Content: TypeAlias = Points | Profile | Table | Text
_KINDS: Final[Mapping[str, type[Content]]] = {"points": Points, "profile": Profile, "table": Table, "text": Text}


@dataclass(frozen=True)
class Panel:
    """One panel of the report. Panels of one title, of one evaluation, stand together, model by model.

    Args:
        title: of the panel; each once in an evaluation.
        content: what is drawn or written.
        note: one or two sentences on how it is read.
        metrics: names of the evaluation's metrics that are written below each model's part, with their intervals.
    """

    title: str
    content: Content
    note: str = ""
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("Panel: title is empty; say in a few words what is shown")
        _check_size(f"Panel {self.title[:40]!r}", "letters of title and note", len(self.title + self.note), LETTERS)
        self.content.check(f"Panel {self.title!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        kind = next(name for name, cls in _KINDS.items() if isinstance(self.content, cls))
        about = {"title": self.title, "note": self.note, "metrics": list(self.metrics), "kind": kind}
        return {**about, "content": asdict(self.content)}

    @classmethod
    def from_json(cls, node: Any, where: str) -> "Panel":
        """The panel that `to_json` wrote.

        Raises:
            ConfigError: it is not one.
        """
        try:
            content = _content(_KINDS[node["kind"]], dict(node["content"]))
            return cls(str(node["title"]), content, str(node["note"]), [str(m) for m in node["metrics"]])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {str(node)[:200]} describes no panel ({error!r})") from error


def check_panels(owner: str, panels: Sequence[Panel], columns: Sequence[Column]) -> None:
    """Refuse panels of one evaluation that share a title, or that name a metric which it does not declare.

    Args:
        owner: begins the message.
        panels: that it returned.
        columns: that it declares; a profile is made of shares.

    Raises:
        ConfigError: names the panel and the rule.
    """
    titles = [panel.title for panel in panels]
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise ConfigError(f"{owner} returns two panels with the title {twice[0]!r}; rename one")
    for panel in panels:
        in_profile = panel.content.metrics if isinstance(panel.content, Profile) else ()
        who, shares = f"{owner}: panel {panel.title!r}", [c.metric for c in columns if c.share]
        _check_named(who, panel.metrics, [c.metric for c in columns])
        _check_named(who, in_profile, shares, " as a share")


def _check_named(owner: str, names: Sequence[str], known: Sequence[str], how: str = "") -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{owner} names {name}, which its columns do not declare{how}{suggestion(name, known)}")


def _content(kind: type[Content], fields: dict[str, Any]) -> Content:
    if kind is Points:
        series = {str(name): [Point(**point) for point in points] for name, points in fields.pop("series").items()}
        return Points(series, **fields)
    return kind(**fields)


def _check_size(owner: str, what: str, size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{owner} has {size} {what}, at most {most}; the report stays small")
