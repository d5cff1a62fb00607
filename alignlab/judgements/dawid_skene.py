"""Dawid and Skene's model of raters who err: true classes, and how often each rater takes one for another, by EM.

Axes: I items, K raters, L classes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SMALLEST: Final = 1e-300
"""Stands for a rate of 0, whose logarithm is needed."""


@dataclass(frozen=True)
class DawidSkeneFit:
    """Maximum of the likelihood.

    Args:
        posterior: (I, L) probability of each class of each item.
        classes: (L,) share of each class.
        rates: (K, L, L) `rates[k, j, l]`: rater k says l of an item of class j.
        log_likelihood: nats.
        steps: of EM until it stood still.
    """

    posterior: Array
    classes: Array
    rates: Array
    log_likelihood: float
    steps: int


def dawid_skene(
    counts: Array, smoothing: float = 0.0, iterations: int = 1000, tolerance: float = 1e-10
) -> DawidSkeneFit:
    """Fit by EM, from each item's own shares.

        M:  classes_j = mean_i T_ij,   rates_kjl ~ sum_i T_ij n_ikl + smoothing
        E:  T_ij ~ classes_j prod_kl rates_kjl^n_ikl

    Args:
        counts: (I, K, L) how often rater k said l of item i; 0 where it was not asked. Every item has at least one.
        smoothing: added to every count of a rater's errors; 0 is the paper's maximum likelihood.
        iterations: of EM, at most.
        tolerance: the largest change of a posterior at which it stops.

    Source: Dawid and Skene 1979, Applied Statistics 28(1), equations 2.3 to 2.5 and 3.1.
    """
    if counts.ndim != 3 or not (counts.sum((1, 2)) > 0).all():
        raise ValueError("dawid_skene: counts are (items, raters, classes), and every item has a judgement")
    said = counts.sum(1)
    posterior = said / said.sum(1, keepdims=True)
    for steps in range(1, iterations + 1):  # noqa: B007  # the number of steps taken
        classes, rates = _maximised(counts, posterior, smoothing)
        before, (posterior, likelihood) = posterior, _expected(counts, classes, rates)
        if float(np.abs(posterior - before).max()) < tolerance:
            break
    return DawidSkeneFit(posterior, classes, rates, likelihood, steps)


def _maximised(counts: Array, posterior: Array, smoothing: float) -> tuple[Array, Array]:
    rates = np.einsum("ij,ikl->kjl", posterior, counts) + smoothing
    total = rates.sum(2, keepdims=True)
    return posterior.mean(0), np.divide(rates, total, out=np.full_like(rates, 1 / rates.shape[2]), where=total > 0)


def _expected(counts: Array, classes: Array, rates: Array) -> tuple[Array, float]:
    logs = np.log(np.maximum(classes, SMALLEST)) + np.einsum("ikl,kjl->ij", counts, np.log(np.maximum(rates, SMALLEST)))
    top = logs.max(1, keepdims=True)
    shares = np.exp(logs - top)
    total = shares.sum(1, keepdims=True)
    return shares / total, float((np.log(total) + top).sum())
