"""Divergence of best-of-n sampling from the policy that is sampled, in nats per answer.

Let F(r) be the probability that one answer's reward is at most r. The best of n has F(r)^n. Where no two answers have
the same reward, its density relative to the policy's is n F^(n-1), and F is uniform:

    KL = int_0^1 n u^(n-1) log(n u^(n-1)) du = log n - (n - 1) / n,

whatever the policy and the reward are. Answers that share a reward are taken as often as the policy gives them, so a
reward whose answers take F from a to b contributes

    (b^n - a^n) log((b^n - a^n) / (b - a)),

which is at most the integral from a to b: ties bring the KL down.

Source: Stiennon et al. 2020, arXiv:2009.01325, appendix G.3; Beirami et al. 2024, arXiv:2401.01879 (it is a bound).
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise


def kl_bound(n: int) -> float:
    """KL of the best of n where all rewards differ; an upper bound where some are equal."""
    return math.log(n) - (n - 1) / n


def kl_of_masses(masses: Sequence[float], n: int) -> float:
    """KL of the best of n where answers have one of a few rewards.

    Args:
        masses: probability of each reward, from the lowest to the highest; > 0, together 1.
        n: answers of which the best is taken, the first where several are.
    """
    return sum(_of_tie(a, b, n) for a, b in _steps(masses))


def kl_estimate(rewards: Sequence[float]) -> float:
    """KL of the best of n for one prompt, judged by its n rewards.

    Equal rewards are taken as one reward with their share of the mass; a reward that occurs once, as a piece of a
    continuous distribution. So it is the bound where all rewards differ, and 0 where all are equal.
    """
    n, counts = len(rewards), [count for _, count in sorted(Counter(rewards).items())]
    pieces = zip(counts, _steps([count / n for count in counts]), strict=True)
    return sum(_of_tie(a, b, n) if count > 1 else _below(b, n) - _below(a, n) for count, (a, b) in pieces)


def _steps(masses: Sequence[float]) -> list[tuple[float, float]]:
    """F before and after each reward; the last is 1, whatever the rounding."""
    ends = [*accumulate(masses)][:-1]
    return list(pairwise([0.0, *ends, 1.0]))


def _of_tie(a: float, b: float, n: int) -> float:
    taken = b**n - a**n
    return taken * math.log(taken / (b - a)) if taken > 0 else 0.0


def _below(u: float, n: int) -> float:
    """Integral of n u^(n-1) log(n u^(n-1)) from 0 to u."""
    return 0.0 if u == 0 else u**n * (math.log(n) + (n - 1) * (math.log(u) - 1 / n))
