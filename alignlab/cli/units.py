"""Sizes, durations and times, as short as a reader needs them."""

import datetime
import re
from typing import Final

HEAD: Final = 15
"""Characters of a line in the head of a column."""


def amount(number: float) -> str:
    """Bytes in the unit that fits: `3.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that fits: `12 s`, `3 min`, `2.5 h`, `4 days`; empty where they are not known."""
    if seconds is None:
        return ""
    if seconds < 0.95:
        return "<1 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def brief(text: str) -> str:
    """A value for a table: a number that a sweeper drew has four digits of the many, anything else stays."""
    try:
        return text if len(text) < 8 else f"{float(text):.4g}"
    except ValueError:
        return text


def heading(metric: str) -> str:
    """A metric as the head of a column: its stage, then its name, which is broken after an underscore."""
    stage, _, name = metric.rpartition("/")
    lines = [""]
    for word in re.findall("[^_]*_?", name):
        lines = [*lines, word] if lines[-1] and len(lines[-1] + word) > HEAD else [*lines[:-1], lines[-1] + word]
    return "\n".join([stage, *lines])


def when(time: datetime.datetime | None) -> str:
    """A time on this machine's clock; a dash where it is not known."""
    return "–" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M")
