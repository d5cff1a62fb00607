"""How far two estimates are apart, where both may have been measured on the same prompts.

Axes: K prompts.
"""

import math
from collections.abc import Mapping

from alignlab.metrics.estimate import Estimate
from alignlab.metrics.intervals import Interval


def difference(new: float, old: float) -> Interval | None:
    """95 % interval of how far one estimate is from another; None where one of them has no interval.

    Where both were measured on the same prompts, what the prompts have in common cancels:

        L = d - sqrt((a - l_a)^2 + (u_b - b)^2 - 2 r (a - l_a) (u_b - b)),   d = a - b,

    and U likewise with the other ends, where r is the correlation of the two over prompts; 0 where the outcomes by
    prompt are not known. That of two shares is known from few prompts only roughly, so it is lowered by what half a
    prompt would change. For one answer per prompt this is Newcombe's paired interval.

    Source: Newcombe 1998, Statistics in Medicine 17(22), method 10; Zou and Donner 2008, Statistics in Medicine 27(10).
    """
    if not isinstance(new, Estimate) or not isinstance(old, Estimate) or not (new.interval and old.interval):
        return None
    (low, high), (old_low, old_high) = new.interval, old.interval
    shared, gap = correlation(new, old), float(new) - float(old)
    if new.method == old.method == "share" and shared > 0:
        shared = max(0.0, shared - _half_a_prompt(new, old))
    down = _combined(float(new) - low, old_high - float(old), shared)
    up = _combined(high - float(new), float(old) - old_low, shared)
    return gap - down, gap + up


def correlation(new: Estimate, old: Estimate) -> float:
    """Correlation of two estimates over the prompts that they share, -1 to 1; 0 where it is not known."""
    a, b = new.influences(), old.influences()
    norm = math.sqrt(_squares(a) * _squares(b))
    together = sum(pull * b[key] for key, pull in a.items() if key in b)
    return min(1.0, max(-1.0, together / norm)) if norm > 0 else 0.0


def _half_a_prompt(new: Estimate, old: Estimate) -> float:
    """Correlation that the continuity term takes away: 1 / (2 K s s'), with the standard deviations over K prompts."""
    a, b = new.influences(), old.influences()
    size = max(len(a), len(b))
    return 1 / (2 * size * size * math.sqrt(_squares(a) * _squares(b)))


def _squares(influences: Mapping[str, float]) -> float:
    return sum(x * x for x in influences.values())


def _combined(a: float, b: float, shared: float) -> float:
    return math.sqrt(max(0.0, a * a + b * b - 2 * shared * a * b))
