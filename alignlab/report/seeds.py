"""A number over seeds: mean, standard error and the interval in which the mean of all seeds lies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from alignlab.metrics.intervals import Interval, student
from alignlab.report.numbers import Format, interval_of


@dataclass(frozen=True)
class OverSeeds:
    """One metric in one setting.

    Args:
        values: of each seed; a single one may be an estimate with an interval of its own.
    """

    values: Sequence[float]

    @property
    def count(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """Mean of the seeds."""
        return fmean(self.values)

    @cached_property
    def error(self) -> float | None:
        """Standard error of the mean, s / sqrt(n); None of one seed."""
        return stdev(self.values) / math.sqrt(self.count) if self.count > 1 else None

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval: mean ± t(n - 1) s / sqrt(n); of one seed the interval that its run measured, over prompts."""
        if self.error is None:
            return interval_of(self.values[0])
        half = student(self.count - 1) * self.error
        return self.mean - half, self.mean + half

    def text(self, written: Format) -> str:
        """`0.75 ± 0.03`; without the standard error where there is none."""
        return written.text(self.mean) + ("" if self.error is None else f" ± {written.text(self.error)}")


def beyond(a: OverSeeds, b: OverSeeds) -> float:
    """Distance of two means over the noise of their difference; more than 1 is beyond it, 0 where it is not known.

    The distances of the facing ends of their intervals are squared and added, as for a sum of independent numbers.
    """
    low, high = sorted((a, b), key=lambda x: x.mean)
    gap = high.mean - low.mean
    if low.interval is None or high.interval is None or not gap:
        return 0.0
    noise = math.hypot(low.interval[1] - low.mean, high.mean - high.interval[0])
    return gap / noise if noise else math.inf
