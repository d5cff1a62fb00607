"""Raters' tastes and biases: measured from their choices alone, next to what was configured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from alignlab.metrics import Estimate
from alignlab.report.numbers import Format, interval_of
from alignlab.report.run import StageView
from alignlab.report.svg import tag

Row: TypeAlias = Mapping[str, Any]
POSITION: Final = "position"
WEIGHT: Final = "weight_"
FEWEST = 100
"""Judgements of a rater below which its weights are not measured."""
DIFFERENT = 20
"""Judgements between answers that differ in a feature, below which its weight is not measured."""
FORMAT = Format(2)
HEIGHT = 20


@dataclass(frozen=True)
class Weight:
    """One feature's weight in a rater's choices.

    Args:
        feature: its name; "position" for what is shown first.
        configured: log-odds per unit, a mean over the rater's judgements.
        measured: log-odds per unit.
    """

    feature: str
    configured: float
    measured: Estimate

    @property
    def holds(self) -> bool:
        """Whether the configured number is in the interval."""
        low, high = interval_of(self.measured) or (self.configured, self.configured)
        return low <= self.configured <= high

    @property
    def told(self) -> str:
        """The numbers in words."""
        return (
            f"measured {FORMAT.text(self.measured)} ({FORMAT.interval(interval_of(self.measured))}), "
            f"configured {FORMAT.text(self.configured)}"
        )

    def drawn(self, reach: float) -> Markup:
        """The interval, the measured number as a dot and the configured one as a diamond, from -reach to reach."""
        low, high = (_percent(end, reach) for end in interval_of(self.measured) or (self.measured, self.measured))
        y = HEIGHT / 2
        configured = tag("svg", tag("path", class_="configured", d=f"M0 {y - 6}L5 {y}L0 {y + 6}L-5 {y}z"),
                         x=_percent(self.configured, reach), overflow="visible")  # fmt: skip
        return tag(
            "svg", tag("title", self.told), tag("line", class_="middle", x1="50%", x2="50%", y1=1, y2=HEIGHT - 1),
            tag("line", class_="interval", x1=low, x2=high, y1=y, y2=y), configured,
            tag("circle", class_="mean", cx=_percent(self.measured, reach), cy=y, r=4),
            width="100%", height=HEIGHT, role="img", aria_label=f"{self.feature}: {self.told}",
        )  # fmt: skip


@dataclass(frozen=True)
class RaterWeights:
    """The weights of one rater.

    Args:
        rater: its name.
        judgements: that they were measured from.
        weights: of features that any rater of the stage has a weight for.
        unseen: such features that too few of the judged pairs differ in.
    """

    rater: str
    judgements: int
    weights: Sequence[Weight]
    unseen: Sequence[str]


@dataclass(frozen=True)
class Biases:
    """The weights of a stage's raters.

    Args:
        raters: by rater.
        reach: end of the common axis, log-odds.
    """

    raters: Sequence[RaterWeights]
    reach: float

    @property
    def count(self) -> int:
        """Number of intervals."""
        return sum(len(r.weights) for r in self.raters)

    @property
    def holding(self) -> int:
        """Number of intervals that hold what was configured."""
        return sum(weight.holds for r in self.raters for weight in r.weights)


def biases_of(stage: StageView) -> Biases | None:
    """The weights of a stage's raters; None where it logged no configured ones, or has too few judgements."""
    from alignlab.judgements.weights import LOG

    file = stage.artifact.path / LOG
    if not file.is_file():
        return None
    rows = _rows(file)
    configured = [n.removeprefix(WEIGHT) for n in (rows[0] if rows else ()) if n.startswith(WEIGHT)]
    features = [f for f in configured if f != POSITION and any(row[f"{WEIGHT}{f}"] for row in rows)]
    names = sorted({str(row["rater"]) for row in rows if row.get(f"{WEIGHT}{POSITION}") is not None})
    found = [_rater(name, [r for r in rows if str(r["rater"]) == name and not r["tie"]], features) for name in names]
    known = [r for r in found if r.weights]
    return Biases(known, _reach(known)) if known else None


def _rows(file: Any) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def _rater(name: str, rows: Sequence[Row], features: Sequence[str]) -> RaterWeights:
    """One rater's weights, of the features in which enough of its pairs differ."""
    if len(rows) < FEWEST:
        return RaterWeights(name, len(rows), (), features)
    gaps = {f: _gaps(rows, f) for f in features if all(row.get(f"first_{f}") is not None for row in rows)}
    told = {f: gap for f, gap in gaps.items() if sum(x != 0 for x in gap) >= DIFFERENT}
    weights = [
        Weight(feature, _mean(rows, f"{WEIGHT}{feature}"), measured)
        for feature, measured in zip([*told, POSITION], _measured(rows, list(told.values())), strict=True)
    ]
    return RaterWeights(name, len(rows), weights, [f for f in features if f not in told])


def _gaps(rows: Sequence[Row], feature: str) -> list[float]:
    return [float(row[f"first_{feature}"]) - float(row[f"second_{feature}"]) for row in rows]


def _measured(rows: Sequence[Row], gaps: Sequence[Sequence[float]]) -> list[Estimate]:
    from alignlab.judgements.weights import measured_weights

    by_judgement = [[gap[i] for gap in gaps] for i in range(len(rows))]
    first, prompts = [bool(r["first_preferred"]) for r in rows], [str(r["prompt"]) for r in rows]
    return measured_weights(by_judgement, first, prompts, _mean(rows, "flip"))


def _mean(rows: Sequence[Row], column: str) -> float:
    return sum(float(row[column] or 0.0) for row in rows) / len(rows)


def _reach(raters: Sequence[RaterWeights]) -> float:
    """End of the axis: every number and most of the intervals fit."""
    numbers = [abs(x) for r in raters for w in r.weights for x in (w.configured, float(w.measured))]
    return 1.25 * max([*numbers, 0.5])


def _percent(value: float, reach: float) -> str:
    return f"{50 + 50 * min(1.0, max(-1.0, value / reach)):.1f}%"
