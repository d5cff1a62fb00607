"""Drawing of one panel: seeds as dots, their mean with standard error and interval, one colour per line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from alignlab.metrics.intervals import Interval
from alignlab.report.chart import FLOOR, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, axes, value_range
from alignlab.report.design import Design, Swept
from alignlab.report.panels import Panel
from alignlab.report.seeds import OverSeeds
from alignlab.report.svg import tag
from alignlab.sanitize import printable

EDGE = 22
"""Room between the first and last value of the axis and the frame."""
LETTER = 6.2
"""Width of a letter of a label."""
SLANTED, LONGEST, CLOSEST = 60, 16, 9
"""Labels that do not fit side by side: further height, letters, and least distance."""
LOGARITHMIC = 20
"""Span from which on the axis of a number is logarithmic: largest over smallest value."""


@dataclass(frozen=True)
class Axis:
    """Places of the values on the horizontal axis.

    Args:
        at: by value.
        connects: whether what lies between two values means something.
        is_log: whether it is logarithmic.
        is_numbered: whether the values are written as their numbers in the table, 1, 2, ...
    """

    at: Mapping[str, float]
    connects: bool = False
    is_log: bool = False
    is_numbered: bool = False

    @classmethod
    def of(cls, design: Design) -> "Axis":
        """A numeric axis where all values are numbers, logarithmic where they span much; else one place per value."""
        swept = design.axis
        if swept is None:
            return cls({"": LEFT + (WIDTH - LEFT - RIGHT) / 2})
        numbers = swept.numbers
        is_log = numbers is not None and min(numbers) > 0 and max(numbers) / min(numbers) > LOGARITHMIC
        raw = [float(i) for i in range(len(swept.values))] if numbers is None else numbers
        places = [math.log(x) for x in raw] if is_log else raw
        low, high = min(places), max(places)
        edge = EDGE if numbers is not None else max(EDGE, (WIDTH - LEFT - RIGHT) / (2 * len(places)))
        room = WIDTH - LEFT - RIGHT - 2 * edge
        at = {v: LEFT + edge + room * (p - low) / (high - low) for v, p in zip(swept.values, places, strict=True)}
        return cls(at, numbers is not None, is_log, design.is_joint)

    @property
    def gap(self) -> float:
        """Least distance of two values."""
        places = sorted(self.at.values())
        return min((b - a for a, b in pairwise(places)), default=WIDTH - LEFT - RIGHT - 2 * EDGE)

    @property
    def is_slanted(self) -> bool:
        """Whether labels do not fit side by side."""
        return (
            not self.connects and not self.is_numbered and any(len(value) * LETTER > self.gap - 4 for value in self.at)
        )

    def labels(self) -> list[Markup]:
        """The values below the axis; one that would touch the one before is left out."""
        found: list[Markup] = []
        end = -math.inf
        for number, (value, x) in enumerate(self.at.items(), 1):
            text = str(number) if self.is_numbered else printable(value)
            if self.is_slanted and x >= end + CLOSEST:
                found.append(_slanted(text, x))
                end = x
            elif not self.is_slanted and x - len(text) * LETTER / 2 > end + 4:
                found.append(tag("text", text, class_="tick", x=x, y=FLOOR + 16, text_anchor="middle"))
                end = x + len(text) * LETTER / 2
            found.append(tag("line", class_="axis", x1=x, x2=x, y1=FLOOR, y2=FLOOR + 4))
        return found


def _slanted(text: str, x: float) -> Markup:
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    turned = f"rotate(-42 {x + 4:.0f} {FLOOR + 13})"
    return tag("text", tag("title", text), short, class_="tick", x=x + 4, y=FLOOR + 13, text_anchor="end",
               transform=turned)  # fmt: skip


def draw(panel: Panel, design: Design, colour: Mapping[str, str]) -> Markup:
    """The panel as SVG.

    Args:
        colour: class of each line's colour, by its name.
    """
    axis = Axis.of(design)
    scale = Scale((0.0, 1.0), _values(panel.points))
    apart = min(26.0, axis.gap * 0.6 / max(1, len(panel.lines)), EDGE * 1.6 / max(1, len(panel.lines) - 1))
    marks = []
    for i, (name, line) in enumerate(panel.lines.items()):
        shift = (i - (len(panel.lines) - 1) / 2) * apart
        places = [(axis.at[value] + shift, line[value]) for value in axis.at if value in line]
        marks.append(tag("g", *_line(places, scale, axis), class_=colour[name]))
    height = HEIGHT + (SLANTED if axis.is_slanted else 0)
    return tag(
        "svg", *axes(scale), *(axis.labels() if design.axis else ()), *marks, class_="chart", role="img",
        viewBox=f"0 0 {WIDTH} {height}", aria_label=_in_words(panel, design.axis),
    )  # fmt: skip


def _values(points: Sequence[OverSeeds]) -> tuple[float, float]:
    """Ends of the vertical axis: all seeds, and intervals as far as they leave the seeds more than half of the room."""
    low, high = value_range([value for point in points for value in point.values])
    ends = [end for point in points for end in point.interval or ()]
    room = (high - low) * 0.5
    return max(low - room, min([low, *ends])), min(high + room, max([high, *ends]))


def _line(places: Sequence[tuple[float, OverSeeds]], scale: Scale, axis: Axis) -> list[Markup]:
    found = []
    if axis.connects and len(places) > 1:
        path = "M" + "L".join(f"{x:.1f} {scale.y(point.mean):.1f}" for x, point in places)
        found.append(tag("path", class_="through", d=path))
    size = max(0.4, min(1.0, axis.gap / 16))
    for x, point in places:
        found += [*_whisker(x, point, scale, size), *_dots(x, point, scale, size)]
    return found


def _whisker(x: float, point: OverSeeds, scale: Scale, size: float) -> list[Markup]:
    """The standard error of several seeds, over their interval in a faint line; of one seed, its own interval."""
    if point.interval is None:
        return []
    if point.error is None:
        return _bar(x, point.interval, scale, size)
    faint = _upright("wide", x, point.interval, scale)
    return [faint, *_bar(x, (point.mean - point.error, point.mean + point.error), scale, size)]


def _bar(x: float, ends: Interval, scale: Scale, size: float) -> list[Markup]:
    """An upright line with bars across its ends, but for an end that lies outside of the frame."""
    bars = [tag("line", class_="spread", x1=x - 3.5 * size, x2=x + 3.5 * size, y1=scale.y(e), y2=scale.y(e))
            for e in ends if TOP / 2 <= scale.y(e) <= FLOOR]  # fmt: skip
    return [_upright("spread", x, ends, scale), *bars]


def _upright(kind: str, x: float, ends: Interval, scale: Scale) -> Markup:
    low, high = (min(FLOOR, max(TOP / 2, scale.y(end))) for end in ends)
    return tag("line", class_=kind, x1=x, x2=x, y1=low, y2=high)


def _dots(x: float, point: OverSeeds, scale: Scale, size: float) -> list[Markup]:
    seeds = [tag("circle", class_="seed", cx=x + 6.5 * size, cy=scale.y(v), r=2.3 * size) for v in point.values]
    mean = tag("circle", class_="mean", cx=x, cy=scale.y(point.mean), r=4.2 * size)
    return [*(seeds if point.count > 1 else ()), mean]


def _in_words(panel: Panel, swept: Swept | None) -> str:
    over = f" over {swept.title}" if swept else ""
    means = (f"{name} {panel.written.text(point.mean)}{f' at {value}' if value else ''}"
             for name, line in panel.lines.items() for value, point in line.items())  # fmt: skip
    return printable(f"{panel.title}{over}: {'; '.join(means)}")
