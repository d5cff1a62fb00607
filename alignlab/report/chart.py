"""Line charts of the logged metrics, drawn as SVG; colours and fonts come from the page's style."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from alignlab.report.numbers import number
from alignlab.report.run import Point
from alignlab.report.svg import tag

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 28
FLOOR = HEIGHT - BOTTOM
LINES = {"train/": "train", "validation/reference_": "reference", "validation/": "validation"}
"""Line of a chart by the beginning of a metric's name; the rest of the name is the chart."""
FIRST = ("reward", "kl", "loss", "accuracy", "margin", "entropy")
POINTS = 300
"""Most points of a line; a drawing shows no more."""
LAST = ("nll", "lr", "tokens_per_second", "peak_memory_mb", "grad_norm")


@dataclass(frozen=True)
class Chart:
    """One metric over the steps of a stage.

    Args:
        title: of the metric.
        lines: points by "train", "validation" and "reference" (the model that training started from).
    """

    title: str
    lines: Mapping[str, Sequence[Point]]

    @property
    def svg(self) -> Markup:
        """The drawing."""
        return _draw(self)

    @property
    def last(self) -> str:
        """Last numbers, in words."""
        return ", ".join(f"{name} {number(points[-1][1])}" for name, points in self.lines.items())


def charts(curves: Mapping[str, Sequence[Point]]) -> list[Chart]:
    """One chart per metric, training and validation together, the most informative first."""
    grouped: dict[str, dict[str, Sequence[Point]]] = {}
    for name, points in curves.items():
        prefix = next((p for p in LINES if name.startswith(p)), "")
        grouped.setdefault(name.removeprefix(prefix), {})[LINES.get(prefix, "train")] = _thinned(points)
    found: list[Chart] = []
    for name in sorted(grouped, key=_place):
        # A loss of one term is logged under two names.
        if not any(_alike(grouped[name], chart.lines) for chart in found):
            found.append(Chart(name.replace("_", " "), grouped[name]))
    return found


def _alike(a: Mapping[str, Sequence[Point]], b: Mapping[str, Sequence[Point]]) -> bool:
    """Whether two charts would look the same."""
    return a.keys() == b.keys() and all(
        [s for s, _ in a[k]] == [s for s, _ in b[k]]
        and all(math.isclose(v, w, rel_tol=1e-4) for (_, v), (_, w) in zip(a[k], b[k], strict=True))
        for k in a
    )


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Evenly spaced points, the first and the last among them."""
    gaps = POINTS - 1
    return points if len(points) <= POINTS else [points[i * (len(points) - 1) // gaps] for i in range(POINTS)]


def _place(name: str) -> tuple[int, str]:
    if name in FIRST:
        return FIRST.index(name), name
    return len(FIRST) + (1 if name.startswith(LAST) else 0), name


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that lie in [low, high]."""
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis on which these values have some room."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        return low - max(0.5, abs(low) * 0.1), high + max(0.5, abs(high) * 0.1)
    room = (high - low) * 0.06
    # A curve that comes near zero shows where zero is.
    return (0.0 if 0 <= low < (high - low) * 0.5 else low - room), high + room


@dataclass(frozen=True)
class Scale:
    """Places in a drawing: ends of both axes."""

    steps: tuple[float, float]
    values: tuple[float, float]

    def x(self, step: float) -> float:
        """Place on the horizontal axis."""
        low, high = self.steps
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - low) / max(1e-12, high - low)

    def y(self, value: float) -> float:
        """Place on the vertical axis."""
        low, high = self.values
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)


def _draw(chart: Chart) -> Markup:
    points = [p for line in chart.lines.values() for p in line]
    scale = Scale((0.0, float(max(s for s, _ in points)) or 1.0), value_range([v for _, v in points]))
    children = [*_axes(scale), *(m for name, line in chart.lines.items() for m in _line(name, line, scale))]
    children.append(tag("g", class_="hover"))
    return tag(
        "svg", *children, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        aria_label=f"{chart.title} over {points[-1][0]} steps; at the end: {chart.last}",
        data_lines=json.dumps([[name, [[s, float(f"{v:.5g}")] for s, v in ps]] for name, ps in chart.lines.items()]),
        data_frame=json.dumps([LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, *scale.steps, *scale.values]),
    )  # fmt: skip


def _axes(scale: Scale) -> list[Markup]:
    return [*axes(scale), *(tick(step, scale.x(step), FLOOR + 16, "middle") for step in ticks(*scale.steps))]


def axes(scale: Scale) -> list[Markup]:
    """Both axes, with round numbers at the vertical one."""
    found = []
    for value in ticks(*scale.values):
        y = scale.y(value)
        found.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        found.append(tick(value, LEFT - 6, y + 3.5, "end"))
    return [*found, tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=FLOOR, y2=FLOOR)]


def tick(value: float, x: float, y: float, anchor: str) -> Markup:
    """A number at an axis; from ten thousand on in thousands, `380k`, so that it fits."""
    text = f"{value / 1000:.4g}k" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
    return tag("text", text.replace("-", "−"), class_="tick", x=x, y=y, text_anchor=anchor)


def _line(name: str, points: Sequence[Point], scale: Scale) -> list[Markup]:
    at = [(scale.x(s), scale.y(v)) for s, v in points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
    found = [tag("path", class_=f"line {name}", d=path)] if len(at) > 1 else []
    if name == "validation" or len(at) == 1:
        found += [tag("circle", class_=f"point {name}", cx=x, cy=y, r=2.6) for x, y in at]
    return found
