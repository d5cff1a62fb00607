"""One label out of several judgements of a pair: each aggregate is a part of a configuration (`aggregate=NAME`).

A label is the probability that the first answer of a pair is the better one; what is certain is 0 or 1.
"""

import abc
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from alignlab.judgements.crowd_bt import Duels, crowd_bradley_terry
from alignlab.judgements.dawid_skene import dawid_skene
from alignlab.judgements.records import Judgement, by_item

Pair = tuple[str, str, str]
"""Item, and its two answers in the order of the item's first judgement."""


@dataclass(frozen=True)
class Vote:
    """One rater's preference between two answers.

    Args:
        pair: item and answers.
        prompt: that they answer; equal answers to equal prompts are one answer.
        rater: who judged.
        preferred: 1 where the first answer was preferred, 0 where the second was, 0.5 for a tie.
    """

    pair: Pair
    prompt: Hashable
    rater: str
    preferred: float


@dataclass(frozen=True)
class Consensus:
    """The outcome of several judgements of a pair.

    Args:
        pair: item and answers.
        first: the label: probability that the first answer is the better one.
        share: of the judgements that prefer the first; a tie counts half.
        count: of the judgements.
    """

    pair: Pair
    first: float
    share: float
    count: int

    @property
    def tied(self) -> bool:
        """Whether neither answer is better."""
        return abs(self.first - 0.5) < 1e-9

    @property
    def of_chosen(self) -> tuple[float, float]:
        """Label and share of the better answer; of the first one where neither is."""
        return (self.first, self.share) if self.first >= 0.5 else (1 - self.first, 1 - self.share)

    def notes(self) -> dict[str, float]:
        """Notes of the comparison (`Comparison.notes`)."""
        probability, share = self.of_chosen
        return {"probability": probability, "agreement": share, "tie": float(self.tied)}


# ---- votes -----------------------------------------------------------------------------------------------------------
def votes(judgements: Iterable[Judgement]) -> list[Vote]:
    """Every pair about which a judgement says something.

    A choice among more answers prefers the chosen one to each other; a ranking compares every two; a tie is one of all.
    """
    return [v for given in by_item(judgements).values() for j in given for v in _of_one(j, given[0].answers)]


def _of_one(judgement: Judgement, answers: Sequence[str]) -> list[Vote]:
    places = None
    if judgement.ranking is not None:
        places = {judgement.answers[number]: place for place, number in enumerate(judgement.ranking)}
    prompt = judgement.prompt if isinstance(judgement.prompt, str) else str(judgement.prompt)
    found = []
    for one, other in combinations(answers, 2):
        if places is not None:
            preferred = float(places[one] < places[other])
        elif judgement.tie or judgement.chosen in (one, other):
            preferred = 0.5 if judgement.tie else float(judgement.chosen == one)
        else:
            continue
        found.append(Vote((judgement.id, one, other), prompt, judgement.rater, preferred))
    return found


class _Numbers:
    """Numbers things in the order in which they are met."""

    def __init__(self) -> None:
        self.of: dict[Hashable, int] = {}

    def __call__(self, thing: Hashable) -> int:
        return self.of.setdefault(thing, len(self.of))


# ---- aggregates ------------------------------------------------------------------------------------------------------
class Aggregate(abc.ABC):
    """Makes one label of all judgements of each pair; it sees all pairs at once."""

    VERSION: ClassVar[str]

    def __call__(self, given: Sequence[Vote]) -> list[Consensus]:
        """The outcome of the votes on each pair, in the order in which the pairs are met."""
        sums: dict[Pair, list[float]] = {}
        for vote in given:
            sums.setdefault(vote.pair, []).append(vote.preferred)
        labels = self.labels(given) if given else []
        shares = {pair: sum(said) / len(said) for pair, said in sums.items()}
        return [Consensus(p, y, shares[p], len(sums[p])) for p, y in zip(sums, labels, strict=True)]

    @abc.abstractmethod
    def labels(self, given: Sequence[Vote]) -> Sequence[float]:
        """Probability of each pair that its first answer is the better one, in the order in which pairs are met."""


@dataclass(frozen=True)
class Soft(Aggregate):
    """The share of the judgements that prefer the first answer; a tie counts half."""

    VERSION: ClassVar[str] = "1"

    def labels(self, given: Sequence[Vote]) -> Sequence[float]:
        """Means of the votes."""
        pairs = _Numbers()
        numbers = [pairs(vote.pair) for vote in given]
        sums = np.bincount(numbers, [vote.preferred for vote in given])
        return [float(x) for x in sums / np.bincount(numbers)]


@dataclass(frozen=True)
class Majority(Aggregate):
    """The choice of most judgements, as a certainty; a half where as many say the opposite."""

    VERSION: ClassVar[str] = "1"

    def labels(self, given: Sequence[Vote]) -> Sequence[float]:
        """0, 0.5 or 1."""
        return [0.5 if share == 0.5 else float(share > 0.5) for share in Soft().labels(given)]


@dataclass(frozen=True)
class DawidSkene(Aggregate):
    """Probability by Dawid and Skene's model: raters who often err count less, or the other way round.

    A rater errs at one rate where the first answer is the better one and at another where the second is. A tie is half
    a judgement for either side.

    Args:
        smoothing: added to each count of a rater's errors; > 0 keeps a rater of few judgements from being certain.
        iterations: of EM, at most.
        tolerance: the largest change of a probability at which it stops.

    Source: Dawid and Skene 1979, Applied Statistics 28(1).
    """

    VERSION: ClassVar[str] = "1"
    smoothing: float = 0.1
    iterations: int = 1000
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        if self.smoothing < 0:
            raise ValueError(f"DawidSkene: smoothing must be >= 0, got {self.smoothing}; it is added to counts")
        _check_search(self, self.iterations, self.tolerance)

    def labels(self, given: Sequence[Vote]) -> Sequence[float]:
        """Posterior probabilities."""
        pairs, raters = _Numbers(), _Numbers()
        placed = [(pairs(vote.pair), raters(vote.rater), vote.preferred) for vote in given]
        counts = np.zeros((len(pairs.of), len(raters.of), 2))
        for pair, rater, preferred in placed:
            counts[pair, rater] += preferred, 1 - preferred
        found = dawid_skene(counts, self.smoothing, self.iterations, self.tolerance)
        return [float(p) for p in found.posterior[:, 0]]


@dataclass(frozen=True)
class CrowdBradleyTerry(Aggregate):
    """Probability by Bradley and Terry's model with a reliability of each rater; see `crowd_bradley_terry`.

    Equal answers to equal prompts share their score over pairs.

    Args:
        penalty: pulls scores to 0, in wins and losses against an answer of score 0; > 0.
        reliable: judgements, known beforehand, that each rater got right; >= 0.
        unreliable: that each rater got wrong; >= 0. The two are the prior of its reliability.
        iterations: of EM, at most.
        tolerance: the largest change of a score (logits) or a reliability at which it stops.

    Source: Chen et al. 2013, Pairwise Ranking Aggregation in a Crowdsourced Setting, WSDM.
    """

    VERSION: ClassVar[str] = "1"
    penalty: float = 0.5
    reliable: float = 9.0
    unreliable: float = 1.0
    iterations: int = 2000
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        if self.penalty <= 0:
            raise ValueError(f"CrowdBradleyTerry: penalty must be > 0, got {self.penalty}; without it scores diverge")
        if not self.reliable > self.unreliable >= 0:
            raise ValueError(
                f"CrowdBradleyTerry: reliable must be above unreliable, and neither below 0, got {self.reliable} and "
                f"{self.unreliable}; otherwise the opposite of every label would fit as well"
            )
        _check_search(self, self.iterations, self.tolerance)

    def labels(self, given: Sequence[Vote]) -> Sequence[float]:
        """sigma(s_first - s_second)."""
        answers, raters = _Numbers(), _Numbers()
        rows = [(answers((v.prompt, v.pair[1])), answers((v.prompt, v.pair[2])), raters(v.rater)) for v in given]
        first, second, rater = (np.array(column) for column in zip(*rows, strict=True))
        found = crowd_bradley_terry(
            Duels(first, second, rater, np.array([float(vote.preferred) for vote in given])),
            len(answers.of),
            len(raters.of),
            self.penalty,
            (1 + self.reliable, 1 + self.unreliable),
            self.iterations,
            self.tolerance,
        )
        gaps = {v.pair: found.scores[i] - found.scores[j] for v, (i, j, _) in zip(given, rows, strict=True)}
        return [float(0.5 + 0.5 * np.tanh(0.5 * gap)) for gap in gaps.values()]


def _check_search(owner: Aggregate, iterations: int, tolerance: float) -> None:
    if iterations < 1 or tolerance <= 0:
        raise ValueError(
            f"{type(owner).__name__}: iterations must be >= 1 and tolerance > 0, got {iterations} and {tolerance}"
        )
