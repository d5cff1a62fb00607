"""Dots: shares of several models, or settings, on one line from 0 to 1, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from alignlab.report.numbers import Format, interval_of
from alignlab.report.svg import tag
from alignlab.sanitize import printable

HEIGHT, STEP = 34, 6
"""Of a row, and between the lines of two models, in pixels; a row of many models is higher."""
GRID = (0, 25, 50, 75, 100)


@dataclass(frozen=True)
class DotRow:
    """One share.

    Args:
        title: of the share.
        values: by name of the model; estimates have an interval.
        better: 1 where more is better, -1 where less is, 0 where neither is.
        meaning: one sentence.
    """

    title: str
    values: Mapping[str, float]
    better: int = 0
    meaning: str = ""

    def drawn(self, colour: Mapping[str, str], hollow: str = "") -> Markup:
        """The row as SVG.

        Args:
            colour: class of each model's colour.
            hollow: name of the model whose dot is a ring: the one that the others came from.
        """
        height = max(HEIGHT, STEP * (len(self.values) + 2))
        grid = [tag("line", class_="grid", x1=f"{t}%", x2=f"{t}%", y1=0, y2=height) for t in GRID]
        middle = (len(self.values) - 1) / 2
        marks = [
            _mark(name, value, height / 2 + STEP * (i - middle), colour[name], "first" if name == hollow else None)
            for i, (name, value) in enumerate(self.values.items())
        ]
        label = ", ".join(f"{printable(name)} {Format().text(value)}" for name, value in self.values.items())
        return tag("svg", *grid, *marks, width="100%", height=height, role="img", aria_label=label)


def _mark(name: str, value: float, y: float, colour: str, class_: str | None) -> Markup:
    interval = interval_of(value)
    ends = f" ({Format().interval(interval)})" if interval else ""
    title = tag("title", f"{printable(name)}: {Format().text(value)}{ends}")
    dot = tag("circle", title, class_=class_, cx=_percent(value), cy=y, r=4.5)
    return tag("g", *_whisker(interval, y), dot, class_=colour)


def _whisker(interval: Sequence[float] | None, y: float) -> list[Markup]:
    if interval is None:
        return []
    left, right = map(_percent, interval)
    return [tag("line", class_="whisker", x1=left, x2=right, y1=y, y2=y)]


def _percent(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.1f}%"
