"""Weights of features in a rater's choices, measured back from the choices alone.

    P(first) = (1 - 2 flip) sigma(w . (f_first - f_second) + b) + flip

with w and b in log-odds: what a rater's taste and biases, and the place of an answer, are worth to it.

Axes: N judgements, F features.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alignlab.metrics import Estimate

Array = npt.NDArray[np.float64]
LOG = "judgements.parquet"
"""Log of judgements, with features as raters saw them and configured weights, where they are known."""
PENALTY = 0.01
"""Of the squared weights: a normal prior with a standard deviation of 10. Without it, a feature that always wins has an
infinite weight; with it, a very wide interval."""
STEPS, TOLERANCE, Z = 100, 1e-9, 1.959964


def measured_weights(
    gaps: Sequence[Sequence[float]], first: Sequence[bool], prompts: Sequence[str], flip: float = 0.0
) -> list[Estimate]:
    """Logistic regression of choices: the weight of each feature, then that of the place, with 95 % intervals.

    The intervals are the wider of two: those of the model, and those that take judgements of one prompt for as many as
    they are (the sandwich of Liang and Zeger 1986, Biometrika 73(1)).

    Args:
        gaps: (N, F) features of the first answer minus those of the second, as the rater saw them.
        first: (N,) whether the first was preferred; ties are left out before.
        prompts: (N,) of the judgements.
        flip: known probability of saying the opposite, 0 to 0.5.
    """
    x = np.column_stack([np.array(gaps, dtype=np.float64).reshape(len(first), -1), np.ones(len(first))])
    y = np.array(first, dtype=np.float64)
    weights = _fit(x, y, flip)
    slopes, information = _slopes(x, y, weights, flip)
    inverse = np.linalg.inv(information)
    errors = np.sqrt(np.maximum(np.diag(inverse), np.diag(inverse @ _by_prompt(slopes, prompts) @ inverse)))
    known = [(float(w), float(Z * e)) for w, e in zip(weights, errors, strict=True)]
    return [Estimate(w, w - half, w + half, len(first)) for w, half in known]


def _fit(x: Array, y: Array, flip: float) -> Array:
    """The weights of the highest penalised likelihood, by Fisher scoring with halved steps."""
    weights = np.zeros(x.shape[1])
    value = _value(x, y, weights, flip)
    for _ in range(STEPS):
        slopes, information = _slopes(x, y, weights, flip)
        step = np.linalg.solve(information, slopes.sum(0) - PENALTY * weights)
        while (found := _value(x, y, weights + step, flip)) < value and np.abs(step).max() > TOLERANCE:
            step = step / 2
        weights, value = weights + step, max(value, found)
        if np.abs(step).max() < TOLERANCE:
            break
    return np.asarray(weights)


def _probability(x: Array, weights: Array, flip: float) -> tuple[Array, Array]:
    """(N,) probability that the first is said to be preferred, and its slope in the log-odds."""
    # Choices against log-odds of more than 30 are told apart by no double.
    meant = 0.5 + 0.5 * np.tanh(0.5 * np.clip(x @ weights, -30, 30))
    return (1 - 2 * flip) * meant + flip, (1 - 2 * flip) * meant * (1 - meant)


def _value(x: Array, y: Array, weights: Array, flip: float) -> float:
    p, _ = _probability(x, weights, flip)
    return float((y * np.log(p) + (1 - y) * np.log1p(-p)).sum() - 0.5 * PENALTY * weights @ weights)


def _slopes(x: Array, y: Array, weights: Array, flip: float) -> tuple[Array, Array]:
    """(N, F + 1) slope of each judgement's log-likelihood, and the (F + 1, F + 1) information with the penalty."""
    p, slope = _probability(x, weights, flip)
    spread = p * (1 - p)
    information = x.T @ (x * (slope**2 / spread)[:, None]) + PENALTY * np.eye(x.shape[1])
    return x * ((y - p) * slope / spread)[:, None], information


def _by_prompt(slopes: Array, prompts: Sequence[str]) -> Array:
    """(F + 1, F + 1) sum over prompts of the outer product of their summed slopes."""
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    total = np.zeros((len(numbers), slopes.shape[1]))
    np.add.at(total, [numbers[prompt] for prompt in prompts], slopes)
    size = len(numbers)
    return np.asarray(total.T @ total * size / max(1, size - 1))
