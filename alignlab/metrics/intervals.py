"""95 % confidence intervals of shares and means whose outcomes come in groups, several of one prompt.

Axes: K prompts, B bootstrap resamples.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Interval = tuple[float, float]

LEVEL: Final = 0.95
"""Confidence level of every interval."""
Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard normal quantile of that level, 1.96."""
RESAMPLES: Final = 2000
"""Bootstrap resamples of a mean."""


def wilson(share: float, size: float) -> Interval:
    """Score interval of a share; it stays within 0 and 1, and is more than a point where the share is 0 or 1.

    Args:
        share: of the outcomes, 0 to 1.
        size: number of independent outcomes; see `effective_size` where they are not.

    Source: Wilson 1927, Journal of the American Statistical Association 22(158).
    """
    squared = Z * Z
    middle = (share + squared / (2 * size)) / (1 + squared / size)
    half = Z / (1 + squared / size) * math.sqrt(share * (1 - share) / size + squared / (4 * size * size))
    # At the ends of the range the interval ends there too; rounding must not leave the share outside of it.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def effective_size(sums: Array, counts: Array) -> float:
    """Number of independent outcomes that would tell as much of a share as these, several of one prompt, do.

    With s_k of n_k outcomes of prompt k, N = sum n_k and p = sum s_k / N,

        n_eff = p (1 - p) / v,   v = K / (K - 1) * sum (s_k - p n_k)^2 / N^2,

    v being the linearised variance of the ratio p over prompts. Outcomes of one prompt cannot tell less than if they
    were all alike, nor more than if they were independent, so n_eff is kept between N^2 / sum n_k^2 and N. Where every
    outcome is the same, nothing is known of how alike those of a prompt are, and n_eff is the former. With one outcome
    per prompt it is N.

    Args:
        sums: (K,) sum of the outcomes of each prompt, each from 0 to 1.
        counts: (K,) number of its outcomes, > 0.

    Source: Kish 1965, Survey Sampling, chapter 8; Korn and Graubard 1998, Survey Methodology 24(2).
    """
    total = float(counts.sum())
    share = float(sums.sum()) / total
    least = total * total / float((counts * counts).sum())
    variance = float((influences(sums, counts) ** 2).sum())
    if len(counts) < 2 or share * (1 - share) <= 0:
        return least
    return total if variance <= 0 else min(max(share * (1 - share) / variance, least), total)


def influences(sums: Array, counts: Array) -> Array:
    """(K,) how far each prompt pulls the ratio from its value; their squares add up to its variance."""
    size, total = len(counts), float(counts.sum())
    residuals = (sums - float(sums.sum()) / total * counts) / total
    return np.asarray(residuals * math.sqrt(size / max(1, size - 1)))


def bootstrap(sums: Array, counts: Array) -> Interval | None:
    """Bias-corrected and accelerated (BCa) bootstrap interval of a mean, by resampling prompts; None for one prompt.

    The mean is the ratio of two sums over prompts. For few prompts the interval is widened as Student's is. Resampling
    is seeded by a constant and goes by the order given, so the same outcomes always give the same interval.

    Args:
        sums: (K,) sum of the outcomes of each prompt.
        counts: (K,) number of its outcomes, > 0.

    Source: Efron 1987, Journal of the American Statistical Association 82(397); widening: Hesterberg 2015, The
        American Statistician 69(4), section 4.3.
    """
    size = len(counts)
    if size < 2:
        return None
    without = (sums.sum() - sums) / (counts.sum() - counts)
    return _limits(float(sums.sum() / counts.sum()), _resampled(sums, counts), without)


def bootstrap_of(statistic: Callable[[Index], float], size: int) -> tuple[Interval, Array] | None:
    """BCa interval of any statistic of K prompts, see `bootstrap`, and how far each pulls it; None for one prompt.

    Args:
        statistic: of the prompts with these numbers, some of them several times, others not at all.
        size: K.

    Returns:
        The interval, and (K,) the jackknife's pulls; their squares add up to its variance.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 11 and 14.
    """
    if size < 2:
        return None
    every, draws = np.arange(size), np.random.default_rng(0)
    drawn = np.array([statistic(draws.integers(size, size=size)) for _ in range(RESAMPLES)])
    without = np.array([statistic(np.delete(every, k)) for k in range(size)])
    pulls = math.sqrt((size - 1) / size) * (without.mean() - without)
    return _limits(statistic(every), drawn, without), pulls


def _limits(value: float, drawn: Array, without: Array) -> Interval:
    """The corrected limits, from the resamples (B,) and the values without each of the prompts (K,)."""
    size = len(without)
    if float(drawn.min()) == float(drawn.max()):
        return value, value
    below = float(np.mean(drawn < value) + 0.5 * np.mean(drawn == value))
    bias = NormalDist().inv_cdf(min(max(below, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES))
    wide, skew = student(size - 1) * math.sqrt(size / (size - 1)), _acceleration(without)
    low, high = np.quantile(drawn, [_corrected(z, bias, skew) for z in (-wide, wide)])
    return min(value, float(low)), max(value, float(high))


def _resampled(sums: Array, counts: Array) -> Array:
    """(B,) means of resampled prompts, a slice of the resamples at a time."""
    size, draws = len(counts), np.random.default_rng(0)
    found = []
    for rows in np.array_split(np.arange(RESAMPLES), max(1, size * RESAMPLES // 2**20)):
        picked = draws.integers(size, size=(len(rows), size))
        found.append(sums[picked].sum(1) / counts[picked].sum(1))
    return np.concatenate(found)


def _acceleration(without: Array) -> float:
    """Skewness of a statistic, by the jackknife over prompts."""
    pulls = without.mean() - without
    squares = float((pulls**2).sum())
    return float((pulls**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def _corrected(z: float, bias: float, acceleration: float) -> float:
    """The quantile at which a corrected limit is read."""
    shifted = bias + z
    # Skewness that would reverse the scale is cut off: the limit is the largest resample then.
    scale = max(1e-3, 1 - acceleration * shifted)
    return NormalDist().cdf(bias + shifted / scale)


def student(freedom: int) -> float:
    """Quantile of Student's distribution at the level of every interval; within 0.1 %.

    One and two degrees of freedom, a mean of two or three seeds, have closed forms.

    Source: Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5.
    """
    if freedom <= 2:
        return math.tan(math.pi * LEVEL / 2) if freedom == 1 else LEVEL * math.sqrt(2 / (1 - LEVEL * LEVEL))
    z, v = Z, float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v ** (i + 1) for i, term in enumerate(terms))
