"""Numbers, intervals and durations, formatted for a reader."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from alignlab.metrics import Estimate
from alignlab.metrics.intervals import Interval


def interval_of(value: float | None) -> Interval | None:
    """The interval of a number; None where it has none."""
    return value.interval if isinstance(value, Estimate) else None


@dataclass(frozen=True)
class Format:
    """How the numbers of one metric are written, so that they can be compared at a glance.

    Args:
        decimals: of every number.
    """

    decimals: int = 2

    @classmethod
    def of(cls, values: Iterable[float], share: bool) -> "Format":
        """As many decimals as tell something of the largest number; shares keep their two.

        Whole numbers have none, unless they are in an interval whose ends are not whole.
        """
        known = list(values)
        ends = [end for value in known for end in interval_of(value) or ()]
        largest = max(map(abs, known), default=0.0)
        if share or not largest:
            return cls()
        if all(value == int(value) for value in [*known, *ends]):
            return cls(0)
        places = 1 - math.floor(math.log10(largest))  # two digits of a number below 1
        return cls(min(6, max(2, places)) if largest < 10 else max(0, places + 1))

    def text(self, value: float | None) -> str:
        """The number; a dash where there is none."""
        return "–" if value is None else _written(f"{round(value, self.decimals) + 0.0:,.{self.decimals}f}")

    def signed(self, difference: float) -> str:
        """A difference; nothing where it would read as 0."""
        text = f"{difference:+,.{self.decimals}f}"
        return _written(text) if any(digit in text for digit in "123456789") else ""

    def interval(self, interval: Interval | None) -> str:
        """Both ends; nothing where there is no interval."""
        return "" if interval is None else " to ".join(map(self.text, interval))

    def narrow(self, interval: Interval | None) -> str:
        """Both ends in few characters; a dash would be read as a minus where an end is negative."""
        if interval is None:
            return ""
        return f"{self.text(interval[0])}{'–' if interval[0] >= 0 else '…'}{self.text(interval[1])}"


def number(value: float) -> str:
    """Two decimals where they tell something, and thousands with a thin space."""
    size = abs(value)
    if size >= 10_000:
        text = f"{value:,.0f}"
    elif size >= 100 or value == int(value):
        text = f"{value:.0f}"
    else:
        text = f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.005 else f"{value:.2g}"
    return _written(text)


def _written(text: str) -> str:
    """A true minus, and thin spaces between thousands from ten thousand on."""
    short = len(text.partition(".")[0].strip("+-")) < len("10,000")
    return text.replace(",", "" if short else "\u202f").replace("-", "−")


def duration(seconds: float) -> str:
    """`4.2 s`, `1 min 07 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
