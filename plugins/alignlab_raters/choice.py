"""From utilities to choices.

P(first) = sigma((u_first - u_second + position_bias) / T),   P' = (1 - 2 flip) P + flip

A ranking is the choice repeated: the best of all, then the best of the others; flips turn the whole of it round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_POINTS = 2001
"""Of the integral in `agreement`."""


@dataclass(frozen=True)
class Bradley:
    """Bradley-Terry choice with position bias and flips.

    Args:
        temperature: reward units over which a preference is undecided; > 0. With utilities N(0, 1), two raters who
            share them agree on .866, .760, .637, .551 of the pairs at .25, .5, 1, 2.
        position_bias: reward units given to whatever is shown first.
        flip: probability of saying the opposite of what one means, 0 to 0.5.

    Source: Bradley and Terry 1952, Biometrika 39(3/4); flips as in AlpacaFarm (Dubois et al. 2023,
        arXiv:2305.14387), where one label in four is turned round.
    """

    temperature: float = 1.0
    position_bias: float = 0.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"Bradley: temperature must be > 0, got {self.temperature}")
        if not 0 <= self.flip <= 0.5:
            raise ValueError(f"Bradley: flip must be from 0 to 0.5, got {self.flip}; above it labels mean the opposite")

    def probability(self, gap: float) -> float:
        """That the first is preferred, given its utility less the second's."""
        return (1 - 2 * self.flip) * sigmoid((gap + self.position_bias) / self.temperature) + self.flip

    def places(self, utilities: Sequence[float], noise: Sequence[float], turned: float) -> tuple[int, ...]:
        """Numbers of some answers, the best first: those with the largest `u / T + noise`.

        With Gumbel noise that is exactly a draw of Plackett and Luce's model: the best by `softmax(u / T)`, then the
        best of the others.

        Args:
            utilities: of the answers, as they are shown; reward units.
            noise: standard Gumbel numbers.
            turned: uniform from 0 to 1; below `flip` the ranking is said the other way round.

        Source: Yellott 1977, J. Math. Psych. 15(2).
        """
        strengths = [s + z for s, z in zip(self._strengths(utilities), noise, strict=True)]
        found = tuple(sorted(range(len(strengths)), key=lambda i: -strengths[i]))
        return found[::-1] if turned < self.flip else found

    def probability_of(self, places: Sequence[int], utilities: Sequence[float]) -> float:
        """That some answers are ranked so."""
        strengths = self._strengths(utilities)
        as_meant, turned = (_plackett_luce([strengths[i] for i in order]) for order in (places, places[::-1]))
        return (1 - self.flip) * as_meant + self.flip * turned

    def _strengths(self, utilities: Sequence[float]) -> list[float]:
        return [(u + self.position_bias * (i == 0)) / self.temperature for i, u in enumerate(utilities)]


def _plackett_luce(strengths: Sequence[float]) -> float:
    """The probability that some answers are ranked in the order in which they are given."""
    found = 1.0
    for k, strength in enumerate(strengths):
        found /= sum(math.exp(min(other - strength, 700.0)) for other in strengths[k:])
    return found


def sigmoid(x: float) -> float:
    """Logistic function, without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def agreement(temperature: float) -> float:
    """How often two raters who share utilities N(0, 1) choose alike: 1 - 2 E[p (1 - p)] over gaps of variance 2."""
    # p (1 - p) falls off like exp(-|gap| / T): beyond 40 T, and beyond 10 standard deviations, nothing is left.
    widest = min(10.0, 40 * temperature)
    step = 2 * widest / (_POINTS - 1)
    total = 0.0
    for i in range(_POINTS):
        z = i * step - widest
        p = sigmoid(math.sqrt(2) * z / temperature)
        total += math.exp(-z * z / 2) * p * (1 - p)
    return 1 - 2 * total * step / math.sqrt(2 * math.pi)


def temperature_for(target_agreement: float) -> float:
    """The temperature at which two raters of like mind agree so often; the inverse of `agreement`.

    Args:
        target_agreement: above 0.5, which is chance, and below 1. People: .63 to .81, by task.
    """
    low, high = 1e-3, 1e3
    if not agreement(high) < target_agreement < agreement(low):
        raise ValueError(f"target_agreement must be above 0.5 and below 1, got {target_agreement}")
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if agreement(middle) > target_agreement else (low, middle)
    return math.sqrt(low * high)
