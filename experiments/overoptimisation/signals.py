"""Signals that may warn of over-optimisation, scored against the truth, which a world that one has made knows.

A run is a curve: the true reward ("gold") and the signals at the same points of its training. The truth may be smoothed
by looking ahead; a signal may not, since whoever watches it stands at the present point.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median
from typing import Literal

Outcome = Literal["early", "in time", "late", "false", "quiet"]


@dataclass(frozen=True)
class Curve:
    """One run along its training; all sequences have one number per point.

    Args:
        steps: optimizer steps.
        kl: to the initial policy, nats per answer, smoothed.
        gold: true reward, smoothed.
        margin: by how much two points of `gold` must differ to differ significantly.
        signals: by name; a larger value warns more.
        group: runs that share it (a seed) are left out together when a threshold is chosen.
    """

    steps: Sequence[float]
    kl: Sequence[float]
    gold: Sequence[float]
    margin: float
    signals: Mapping[str, Sequence[float]]
    group: int = 0

    @cached_property
    def peak(self) -> int:
        """Point of the largest true reward, the first of them."""
        return max(range(len(self.gold)), key=lambda i: self.gold[i])

    @cached_property
    def fall(self) -> int | None:
        """Point from which on the true reward lies below its peak by more than the margin; None where it ends above."""
        last = max(i for i, x in enumerate(self.gold) if x >= self.gold[self.peak] - self.margin)
        return last + 1 if last + 1 < len(self.gold) else None


@dataclass(frozen=True)
class Score:
    """How a signal with one threshold did on one run.

    Args:
        outcome: `early`: the true reward was still to rise by more than the margin. `in time`: it was within the margin
            of its peak. `late`: it had fallen, or there was no alarm. Of a run that never falls, any alarm is `false`,
            and none `quiet`.
        lead: optimizer steps from the alarm to the fall; None without a fall or an alarm. Below 0 where it was late.
        lead_kl: the same in nats.
        lost: true reward at the peak less that at the alarm, where one would have stopped; at the end without one.
    """

    outcome: Outcome
    lead: float | None
    lead_kl: float | None
    lost: float


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Mean over the points within half a width on either side, fewer at the ends; the width is odd."""
    half = width // 2
    return [mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def trailing(values: Sequence[float], width: int) -> list[float]:
    """Mean over the latest points, this one included; fewer at the beginning."""
    return [mean(values[max(0, i + 1 - width) : i + 1]) for i in range(len(values))]


def noise(values: Sequence[float]) -> float:
    """Standard deviation of independent noise on a slow curve, by the differences of neighbours."""
    steps = [b - a for a, b in itertools.pairwise(values)]
    return math.sqrt(mean(d * d for d in steps) / 2)


def significant(values: Sequence[float], width: int, errors: float = 3.0) -> float:
    """Standard errors of the difference of two means over as many points as the width, for a margin."""
    return errors * noise(values) * math.sqrt(2 / width)


def alarm(signal: Sequence[float], threshold: float) -> int | None:
    """First point at which a signal is above its threshold."""
    return next((i for i, x in enumerate(signal) if x > threshold), None)


def score(curve: Curve, signal: str, threshold: float) -> Score:
    """What a signal's first alarm on a run was worth."""
    at, fall, peak = alarm(curve.signals[signal], threshold), curve.fall, curve.peak
    lost = curve.gold[peak] - curve.gold[-1 if at is None else at]
    if fall is None:
        return Score("quiet" if at is None else "false", None, None, lost)
    if at is None:
        return Score("late", None, None, lost)
    lead, lead_kl = curve.steps[fall] - curve.steps[at], curve.kl[fall] - curve.kl[at]
    if at >= fall:
        return Score("late", lead, lead_kl, lost)
    return Score("early" if at < peak and lost > curve.margin else "in time", lead, lead_kl, lost)


def thresholds(curves: Iterable[Curve], signal: str) -> list[float]:
    """Every threshold that leads to other alarms: halfway between neighbouring records of the signal, and beyond."""
    records = set()
    for curve in curves:
        highest = -math.inf
        for x in curve.signals[signal]:
            highest = max(highest, x)
            records.add(highest)
    values = sorted(records)
    return [*((a + b) / 2 for a, b in itertools.pairwise(values)), values[-1]]


def best_threshold(curves: Sequence[Curve], signal: str) -> float:
    """The threshold at which stopping at the alarm loses least true reward; the middle one where several are alike."""
    known = thresholds(curves, signal)
    lost = [mean(score(c, signal, t).lost for c in curves) for t in known]
    good = [t for t, x in zip(known, lost, strict=True) if x <= min(lost) + 1e-12]
    return good[len(good) // 2]


def held_out(curves: Sequence[Curve], signal: str) -> list[Score]:
    """Each run scored with the threshold that the runs of the other groups chose."""
    chosen = {g: best_threshold([c for c in curves if c.group != g], signal) for g in {c.group for c in curves}}
    return [score(c, signal, chosen[c.group]) for c in curves]


def auc(curves: Iterable[Curve], signal: str) -> float:
    """Probability that a point past a peak which is fallen from has a higher value than one that is not; ties half.

    Points of all runs are pooled: the signal must mean the same in each. 0.5 is chance.
    """
    past: list[float] = []
    before: list[float] = []
    for curve in curves:
        end = len(curve.gold) if curve.fall is None else curve.peak
        before += curve.signals[signal][:end]
        past += curve.signals[signal][end:]
    wins = sum((p > b) + (p == b) / 2 for p in past for b in before)
    return wins / (len(past) * len(before))


def mean_of(scores: Iterable[Score], what: Callable[[Score], float]) -> float:
    """Mean of a number over scores."""
    return mean(map(what, scores))


def median_lead(scores: Iterable[Score], what: Callable[[Score], float | None] = lambda s: s.lead) -> float | None:
    """Median lead over the falls that had an alarm, late ones included; None where none had."""
    known = [x for s in scores if (x := what(s)) is not None]
    return median(known) if known else None
