"""Calibration: whether what is said with probability p is right in a share p of the cases.

Axes: N answers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alignlab.metrics import Estimate

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
    # Floating-point borders (3 * 0.1 > 0.3) are rounded away.
    place = np.clip(np.ceil(np.round(confidence * bins, 9)).astype(np.int64) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(place, weights=right - confidence, minlength=bins)).sum() / len(confidence))


def calibration_estimate(
    prompts: Sequence[str], confidence: Sequence[float], right: Sequence[float], bins: int
) -> Estimate | None:
    """The calibration error with its interval over prompts; None of no answers.

    Answers that are all equally sure and all right have an interval that is a point: resampling sees no other answers.
    """
    p, r = (np.array(values, dtype=np.float64) for values in (confidence, right))
    return Estimate.statistic(prompts, lambda places: calibration_error(p[places], r[places], bins))
