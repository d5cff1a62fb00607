"""Plot: points over two numeric axes, with intervals, lines and a legend by colour."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from alignlab.metrics import Point
from alignlab.report.chart import FLOOR, HEIGHT, WIDTH, Scale, axes, tick, ticks, value_range
from alignlab.report.numbers import number
from alignlab.report.svg import tag
from alignlab.sanitize import printable

Range = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Args:
        name: for the legend and for readers who do not see the drawing.
        points: in the order in which they are joined.
        colour: class of the colour.
        joined: whether a line joins them.
        marked: whether each of them is a dot; else the line alone is drawn, and a dot at its end.
    """

    name: str
    points: Sequence[Point]
    colour: str
    joined: bool = True
    marked: bool = True


@dataclass(frozen=True)
class Plot:
    """Both axes of one or several drawings.

    Args:
        x: title of the horizontal axis.
        y: title of the vertical axis.
        across: ends of the horizontal axis.
        up: ends of the vertical axis.
        diagonal: whether the line y = x is drawn.
    """

    x: str
    y: str
    across: Range
    up: Range
    diagonal: bool = False

    @classmethod
    def around(cls, points: Iterable[Point], x: str, y: str, diagonal: bool = False) -> "Plot":
        """Axes with some room around all points and intervals; with a diagonal both are the same, 0 to 1 of shares."""
        known = list(points)
        across = value_range([p.x for p in known])
        up = value_range([v for p in known for v in (p.y, p.low, p.high) if v is not None])
        if diagonal:
            both = min(across[0], up[0]), max(across[1], up[1])
            across = up = (0.0, 1.0) if _are_shares(known) else both
        return cls(x, y, across, up, diagonal)

    def drawn(self, series: Sequence[Series]) -> Markup:
        """Some points on these axes, as SVG."""
        scale = Scale(self.across, self.up)
        marks = [tag("g", *_series(s, scale), class_=s.colour) for s in series if s.points]
        label = f"{self.y} over {self.x}: {'; '.join(filter(None, map(_in_words, series)))}"
        return tag(
            "svg", *axes(scale), *_x_ticks(scale), *(_diagonal(scale) if self.diagonal else ()), *marks, class_="plot",
            viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=printable(label),
        )  # fmt: skip


def _are_shares(points: Sequence[Point]) -> bool:
    return all(0 <= p.x <= 1 and 0 <= p.y <= 1 for p in points)


def _x_ticks(scale: Scale) -> list[Markup]:
    return [tick(value, scale.x(value), FLOOR + 16, "middle") for value in ticks(*scale.steps)]


def _diagonal(scale: Scale) -> list[Markup]:
    low, high = max(scale.steps[0], scale.values[0]), min(scale.steps[1], scale.values[1])
    ends = {"x1": scale.x(low), "y1": scale.y(low), "x2": scale.x(high), "y2": scale.y(high)}
    return [tag("line", class_="diagonal", **ends)]


def _series(series: Series, scale: Scale) -> list[Markup]:
    at = [(scale.x(p.x), scale.y(p.y)) for p in series.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    line = [tag("path", class_="through", d=path)] if series.joined and len(at) > 1 else []
    shown = list(zip(series.points, at, strict=True))[0 if series.marked else -1 :]
    return [*line, *(m for point, (x, y) in shown for m in _point(series.name, point, x, y, scale.y))]


def _point(name: str, point: Point, x: float, y: float, place: Callable[[float], float]) -> list[Markup]:
    found = []
    if point.low is not None and point.high is not None:
        found.append(tag("line", class_="spread", x1=x, x2=x, y1=place(point.low), y2=place(point.high)))
    return [*found, tag("circle", tag("title", _told(name, point)), class_="mean", cx=x, cy=y, r=4)]


def _told(name: str, point: Point) -> str:
    ends = f" ({number(point.low)} to {number(point.high)})" if point.low is not None and point.high is not None else ""
    return f"{printable(name)}{': ' if name else ''}{number(point.y)}{ends} at {number(point.x)}"


def _in_words(series: Series, most: int = 12) -> str:
    """The points of a series, or of a long one its ends."""
    points = series.points if len(series.points) <= most else [series.points[0], series.points[-1]]
    told = ", ".join(f"{number(p.y)} at {number(p.x)}" for p in points)
    return f"{series.name} {told}".strip()
