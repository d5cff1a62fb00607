"""From utilities to choices.

P(first) = sigma((u_first - u_second + position_bias) / T),   P' = (1 - 2 flip) P + flip
T = temperature (1 + fatigue t),   position_bias grows by drift t,   t in thousands of judgements

A ranking is the choice repeated: the best of all, then the best of the others; flips turn the whole of it round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_POINTS = 2001
"""Of the integral in `agreement`."""


@dataclass(frozen=True)
class Bradley:
    """Bradley-Terry choice with position bias, flips, ties, and raters who tire.

    Args:
        temperature: reward units over which a preference is undecided; > 0. With utilities N(0, 1), two raters who
            share them agree on .866, .760, .637, .551 of the pairs at .25, .5, 1, 2.
        position_bias: reward units given to whatever is shown first.
        flip: probability of saying the opposite of what one means, 0 to 0.5.
        ties: how readily a tie is called, >= 0: equally good answers tie with probability ties / (1 + ties). Win, loss
            and tie have the odds exp(d / 2) : exp(-d / 2) : 2 ties, with d = (gap + position_bias) / T; they leave
            the odds of the first against the second as they are. Rankings have none.
        fatigue: growth of the temperature in 1000 judgements of the stage, as a share of it; >= 0.
        drift: reward units that the position bias gains in 1000 judgements.

    Source: Bradley and Terry 1952, Biometrika 39(3/4); flips as in AlpacaFarm (Dubois et al. 2023,
        arXiv:2305.14387), where one label in four is turned round; ties: Davidson 1970, J. Am. Stat. Assoc. 65(329).
    """

    temperature: float = 1.0
    position_bias: float = 0.0
    flip: float = 0.0
    ties: float = 0.0
    fatigue: float = 0.0
    drift: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"Bradley: temperature must be > 0, got {self.temperature}")
        if not 0 <= self.flip <= 0.5:
            raise ValueError(f"Bradley: flip must be from 0 to 0.5, got {self.flip}; above it labels mean the opposite")
        if self.ties < 0:
            raise ValueError(f"Bradley: ties must be >= 0, got {self.ties}; 0 calls none")
        if self.fatigue < 0:
            raise ValueError(f"Bradley: fatigue must be >= 0, got {self.fatigue}; the temperature must not fall to 0")

    def at(self, index: int) -> "Bradley":
        """The choice as it is at a judgement, by its number."""
        if not self.fatigue and not self.drift:
            return self
        t = index / 1000
        temperature, bias = self.temperature * (1 + self.fatigue * t), self.position_bias + self.drift * t
        return replace(self, temperature=temperature, position_bias=bias, fatigue=0.0, drift=0.0)

    def probability(self, gap: float) -> float:
        """That the first is preferred, given its utility less the second's."""
        return (1 - 2 * self.flip) * sigmoid((gap + self.position_bias) / self.temperature) + self.flip

    def tie_probability(self, gap: float) -> float:
        """That neither is preferred, given the first's utility less the second's."""
        closeness = math.exp(-abs(gap + self.position_bias) / self.temperature / 2)
        return 2 * self.ties * closeness / (1 + closeness * closeness + 2 * self.ties * closeness)

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


def temperature_for(target_agreement: float, flip: float = 0.0) -> float:
    """The temperature at which two raters of like mind agree so often; the inverse of `agreement`.

    Flips take their part of the agreement: a' = 1 - 2 e (1 - e) - (1 - 2 e)^2 (1 - a), with e their probability.

    Args:
        target_agreement: above 0.5, which is chance, and below 1. People: .63 to .81, by task.
        flip: see `Bradley`.
    """
    low, high = 1e-3, 1e3
    at_most = 1 - 2 * flip * (1 - flip)
    if not 0.5 < target_agreement < at_most:
        raise ValueError(
            f"target_agreement must be above 0.5 and below {at_most:g}, got {target_agreement}; flips of {flip:g} "
            f"leave no more"
            if flip
            else f"target_agreement must be above 0.5 and below 1, got {target_agreement}"
        )
    target_agreement = 1 - (at_most - target_agreement) / (1 - 2 * flip) ** 2 if flip else target_agreement
    if not agreement(high) < target_agreement < agreement(low):
        raise ValueError(
            f"target_agreement is so close to its limit that no temperature reaches it: {target_agreement}"
        )
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if agreement(middle) > target_agreement else (low, middle)
    return math.sqrt(low * high)
