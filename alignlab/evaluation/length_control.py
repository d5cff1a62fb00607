"""Length-controlled win rate: that of answers of equal length, by a logistic regression.

Axes: N pairs, K prompts.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from alignlab.metrics import Estimate
from alignlab.metrics.intervals import student

Array = npt.NDArray[np.float64]
PRIOR: Final = 2.5
"""Standard deviation of the coefficients' normal prior, log odds: half of all win rates that are thought likely lie
between 0.16 and 0.84. It decides only where the pairs say nothing, and keeps certain judges from infinite odds."""
STEPS: Final = 50
"""Of Newton's method, at most; six are usual."""


def length_controlled(prompts: Sequence[str], wins: Sequence[float], gaps: Sequence[float]) -> Estimate | None:
    """How often a model would win if its answers were as long as the baseline's; None where that is not known.

        log odds of a win = theta + phi * tanh(gap / standard deviation of the gaps),   win rate = sigma(theta)

    It is not known of fewer than two prompts, or where one of the two models always gives the longer answer: a judge of
    quality and a judge of length then choose alike.

    The interval is symmetric in log odds. Its variance is the larger one of the sandwich over prompts and of the
    curvature: the first counts answers to one prompt together, and the second knows that of a judge who always takes
    the longer answer, theta is hardly known.

    The published model has a third term, the difficulty of each prompt, whose coefficients are fitted on all models of
    a leaderboard. Of two models they cannot be told from theta, and the term is dropped; so is the cross-validation of
    the ridge penalty, in whose place there is the prior.

    Args:
        prompts: (N,) of the pairs.
        wins: (N,) 1 where the model wins, 0 where the baseline does, 0.5 tied.
        gaps: (N,) length of the model's answer minus that of the baseline's, any unit.

    Source: Dubois et al. 2024, arXiv:2404.04475, section 3.
    """
    y, gap = np.array(wins, dtype=np.float64), np.array(gaps, dtype=np.float64)
    keys = sorted(set(prompts))
    if len(keys) < 2 or gap.min() > 0 or gap.max() < 0:
        return None
    x = np.stack([np.ones_like(gap), np.tanh(gap / (gap.std() or 1.0))], 1)
    theta = _fitted(x, y)
    p = _sigmoid(x @ theta)
    curvature = np.linalg.inv(_information(x, p))
    number = {key: i for i, key in enumerate(keys)}
    pulls = np.zeros((len(keys), 2))
    np.add.at(pulls, [number[prompt] for prompt in prompts], (y - p)[:, None] * x @ curvature)
    pulls *= math.sqrt(len(keys) / (len(keys) - 1))
    wide = student(len(keys) - 1) * math.sqrt(max(float((pulls[:, 0] ** 2).sum()), float(curvature[0, 0])))
    value, low, high = _sigmoid(theta[0] + wide * np.array([0.0, -1.0, 1.0])).tolist()
    # By prompt: the win rate moves by its slope in theta.
    slope = value * (1 - value)
    moved = {key: slope * float(pull) for key, pull in zip(keys, pulls[:, 0], strict=True)}
    return Estimate.pulled(value, (low, high), moved, len(y))


def _fitted(x: Array, y: Array) -> Array:
    """The likeliest coefficients, with the prior; Newton's method, whose steps are halved where they go too far."""
    theta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = _sigmoid(x @ theta)
        step = np.linalg.solve(_information(x, p), x.T @ (y - p) - theta / PRIOR**2)
        while _objective(x, y, theta + step) < _objective(x, y, theta) - 1e-12:
            step = step / 2
        theta = theta + step
        if float(np.abs(step).max()) < 1e-12:
            break
    return theta


def _objective(x: Array, y: Array, theta: Array) -> float:
    z = x @ theta
    return float((y * z - np.logaddexp(0.0, z)).sum() - (theta @ theta) / (2 * PRIOR**2))


def _information(x: Array, p: Array) -> Array:
    return np.asarray(x.T @ (x * (p * (1 - p))[:, None]) + np.eye(x.shape[1]) / PRIOR**2)


def _sigmoid(z: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(z / 2))
