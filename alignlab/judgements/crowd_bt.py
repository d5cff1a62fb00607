"""Bradley and Terry's model with raters of different reliability.

Axes: N judgements, A answers, K raters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duels:
    """Judgements of pairs, by number.

    Args:
        first: (N,) number of one answer.
        second: (N,) number of the other.
        rater: (N,) number of the rater.
        preferred: (N,) 1 where the first was preferred, 0 where the second was, 0.5 for a tie.
    """

    first: Numbers
    second: Numbers
    rater: Numbers
    preferred: Array


@dataclass(frozen=True)
class CrowdBTFit:
    """Maximum of the penalised likelihood.

    Args:
        scores: (A,) of the answers, logits.
        reliability: (K,) probability that a rater says what it sees; 0.5 says nothing, below it the opposite.
        steps: of EM until it stood still.
    """

    scores: Array
    reliability: Array
    steps: int


def crowd_bradley_terry(
    duels: Duels,
    answers: int,
    raters: int,
    penalty: float = 0.5,
    prior: tuple[float, float] = (10.0, 1.0),
    iterations: int = 2000,
    tolerance: float = 1e-8,
) -> CrowdBTFit:
    """Fit by EM over whether each judgement is said as it is seen.

        P(k says i over j) = eta_k sigma(s_i - s_j) + (1 - eta_k) sigma(s_j - s_i)

    Maximises the log-likelihood, plus `penalty` times that of a win and a loss of every answer against one of score 0
    (the paper's virtual node, without which a score could be infinite), plus `(a - 1) log eta + (b - 1) log(1 - eta)`
    of a Beta(a, b) prior of each rater's reliability. Left out: the paper's online choice of what is judged next.

    Args:
        duels: the judgements.
        answers: their number.
        raters: their number.
        penalty: > 0; the paper's lambda.
        prior: a and b, >= 1; 1 and 1 give maximum likelihood.
        iterations: of EM, at most.
        tolerance: the largest change of a score or a reliability at which it stops.

    Source: Chen, Bennett, Collins-Thompson and Horvitz 2013, Pairwise Ranking Aggregation in a Crowdsourced Setting,
        WSDM, equations 3 to 5.
    """
    scores, reliability = np.zeros(answers), np.full(raters, prior[0] / sum(prior))
    # The logistic's curvature is at most 1/4: such steps never lower what is maximised.
    bound = _sums(duels.first, duels.second, np.ones(len(duels.rater)), answers)[1] / 2 + penalty / 2
    for steps in range(1, iterations + 1):  # noqa: B007  # the number of steps taken
        wins, honest = _expected(duels, scores, reliability)
        gap = _sigmoid(scores[duels.first] - scores[duels.second])
        slope, _ = _sums(duels.first, duels.second, wins - gap, answers)
        moved = (slope + penalty * (1 - 2 * _sigmoid(scores))) / bound
        scores = scores + moved
        told = np.bincount(duels.rater, honest, raters) + prior[0] - 1
        asked = np.bincount(duels.rater, minlength=raters) + sum(prior) - 2
        before = reliability
        reliability = np.divide(told, asked, out=np.full(raters, 0.5), where=asked > 0)
        if max(float(np.abs(moved).max()), float(np.abs(reliability - before).max())) < tolerance:
            break
    return CrowdBTFit(scores, reliability, steps)


def _expected(duels: Duels, scores: Array, reliability: Array) -> tuple[Array, Array]:
    """(N,) probabilities that the first was seen to be better, and that what was said is what was seen.

    A tie is half a judgement for either side.
    """
    p, eta = _sigmoid(scores[duels.first] - scores[duels.second]), reliability[duels.rater]
    yes = eta * p / np.maximum(eta * p + (1 - eta) * (1 - p), 1e-300)
    no = eta * (1 - p) / np.maximum(eta * (1 - p) + (1 - eta) * p, 1e-300)
    share = duels.preferred
    return np.asarray(share * yes + (1 - share) * (1 - no)), np.asarray(share * yes + (1 - share) * no)


def _sums(first: Numbers, second: Numbers, values: Array, answers: int) -> tuple[Array, Array]:
    """(A,) of values, added to the first and taken from the second; and added to both."""
    plus, minus = (np.bincount(side, values, answers).astype(np.float64) for side in (first, second))
    return plus - minus, plus + minus


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
