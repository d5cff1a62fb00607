"""Calibration: whether what is said with probability p is right in a share p of the cases.

Axes: N answers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alignlab.metrics import Estimate, Panel, Point, Points

Array = npt.NDArray[np.float64]


def calibration_error(confidence: Array, right: Array, bins: int) -> float:
    """Expected calibration error: over bins of equal width, the mean of |share that is right - mean confidence|.

        ECE = sum over bins b of  (n_b / N) * |mean of right in b - mean of confidence in b|

    A confidence on the border of two bins belongs to the lower one. With few answers per bin it is above that of the
    model's true probabilities, as chance alone moves the shares.

    Args:
        confidence: (N,) from 0 to 1.
        right: (N,) 1 where the answer is right, 0 where it is not; 0.5 is half right.
        bins: of the range from 0 to 1.

    Source: Naeini, Cooper and Hauskrecht 2015, AAAI; bins as in Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    place = bins_of(confidence, bins)
    return float(np.abs(np.bincount(place, weights=right - confidence, minlength=bins)).sum() / len(confidence))


def bins_of(confidence: Array, bins: int) -> npt.NDArray[np.int64]:
    """(N,) number of the bin of each confidence, from 0."""
    # Floating-point borders (3 * 0.1 > 0.3) are rounded away.
    return np.clip(np.ceil(np.round(confidence * bins, 9)).astype(np.int64) - 1, 0, bins - 1)


def calibration_estimate(
    prompts: Sequence[str], confidence: Sequence[float], right: Sequence[float], bins: int
) -> Estimate | None:
    """The calibration error with its interval over prompts; None of no answers.

    Answers that are all equally sure and all right have an interval that is a point: resampling sees no other answers.
    """
    p, r = (np.array(values, dtype=np.float64) for values in (confidence, right))
    return Estimate.statistic(prompts, lambda places: calibration_error(p[places], r[places], bins))


def reliability(
    prompts: Sequence[str],
    confidence: Sequence[float],
    right: Sequence[float],
    bins: int,
    what: str,
    metrics: Sequence[str] = ("calibration_error",),
) -> list[Panel]:
    """The reliability diagram as a panel of the report; none of no answers.

    Args:
        prompts: of the answers.
        confidence: of each, from 0 to 1.
        right: 1 where the answer is right, 0 where it is not, 0.5 where it is half right.
        bins: of equal width, from 0 to 1; those without an answer are left out.
        what: is sure, in the plural: "one-word answers".
        metrics: names of those that are written below it.
    """
    place = bins_of(np.array(confidence, dtype=np.float64), bins).tolist() if confidence else []
    members = [[i for i, own in enumerate(place) if own == number] for number in range(bins)]
    points = [_point([prompts[i] for i in m], [confidence[i] for i in m], [right[i] for i in m]) for m in members if m]
    if not points:
        return []
    drawn = Points({"": points}, f"mean probability of the {what}", "share that is right", diagonal=True)
    note = (
        f"A point per bin of probability ({bins} bins of equal width), with its 95 % interval. On the dashed line, "
        f"what is said with probability p is right in a share p of the cases; below it, the probabilities are too high."
    )
    return [Panel("Reliability", drawn, note, metrics)]


def _point(prompts: Sequence[str], confidence: Sequence[float], right: Sequence[float]) -> Point:
    share = Estimate.share(zip(prompts, right, strict=True))
    assert share is not None and share.interval is not None, "a bin that is drawn has answers"
    return Point(sum(confidence) / len(confidence), float(share), *share.interval)
