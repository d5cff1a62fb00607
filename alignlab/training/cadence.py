"""Cadence: when the next resumable checkpoint is due, by steps, by time, or by what it costs."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST: Final = 0.2
"""Seconds that a save is taken to last before one was measured: at 2 %, the first one is due after 10 seconds."""
_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_FORM: Final = re.compile(r"(\d+(?:\.\d+)?) ?(%|s|min|h)")


@dataclass(frozen=True)
class Every:
    """A parsed `loop.save_every`; one of the three is set.

    Args:
        steps: optimizer steps from save to save.
        seconds: from save to save.
        share: of the time that saving may take.
    """

    steps: int | None = None
    seconds: float | None = None
    share: float | None = None

    @classmethod
    def parse(cls, value: int | str) -> "Every":
        """A whole number of steps, a time ("90s", "10min", "2h"), or a share of the time ("2%").

        Raises:
            ValueError: it is none of these.
        """
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return cls(steps=value)
        found = _FORM.fullmatch(value.strip()) if isinstance(value, str) else None
        number = float(found[1]) if found else 0.0
        if found and found[2] == "%" and 0 < number < 100:
            return cls(share=number / 100)
        if found and found[2] != "%" and number > 0:
            return cls(seconds=number * _SECONDS[found[2]])
        raise ValueError(
            f"Loop: save_every must be a number of steps >= 1, a time (90s, 10min, 2h) or a share of the time (2%), "
            f"got {value!r}"
        )


class Cadence:
    """Tells when to save. What it decides has no influence on what is learnt.

    Args:
        every: see `Every.parse`.
        clock: seconds; one that nobody sets.
    """

    def __init__(self, every: int | str, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = Every.parse(every)
        self._clock = clock
        self._cost = FIRST
        self._since = clock()

    @property
    def is_by_time(self) -> bool:
        """Whether processes may differ in what they find due."""
        return self._every.steps is None

    def start(self) -> None:
        """Count the time from here."""
        self._since = self._clock()

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after a step."""
        if self._every.steps is not None:
            return step % self._every.steps == 0
        passed = self._clock() - self._since
        if self._every.seconds is not None:
            return passed >= self._every.seconds
        assert self._every.share is not None
        return passed * self._every.share >= self._cost

    def saved(self, seconds: float) -> None:
        """A save has ended, and took so long."""
        self._cost = seconds
        self._since = self._clock()
