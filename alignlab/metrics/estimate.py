"""Estimates: numbers with a 95 % confidence interval, and the outcomes by prompt that they were made of.

A share has a Wilson interval. Where several outcomes are of one prompt, its size is the number of independent outcomes
that would tell as much (`intervals.effective_size`). A mean has a bootstrap interval over prompts. The interval says
how far the number would move with other prompts of the same kind and other samples, for *this* model; it does not cover
what another seed of training would change.

Axes: K prompts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from alignlab.metrics.intervals import Index, Interval, bootstrap, bootstrap_of, effective_size, wilson
from alignlab.metrics.tally import Number, Tally, key_of

Method = Literal["share", "mean", "given"]


class Estimate(float):
    """A number with its 95 % interval; it is a float, and can be used as one.

    Make one with `Estimate.share`, `mean`, `ratio`, `average` or `statistic`. A number whose interval
    comes from elsewhere is `Estimate(value, low, high, count)`; two of those are compared as if they were independent.

    Args:
        value: the number.
        low: lower end of its interval; None where there is none (a mean of one prompt).
        high: upper end.
        count: of the outcomes that it is made of.
        method: how the interval was made.
        tallies: the outcomes by prompt; several where it is the average of as many shares.
    """

    low: float | None
    high: float | None
    count: int
    method: Method
    tallies: tuple[Tally, ...]
    __slots__ = ("count", "high", "low", "method", "tallies")

    def __new__(
        cls,
        value: float,
        low: float | None = None,
        high: float | None = None,
        count: int = 0,
        method: Method = "given",
        tallies: Sequence[Tally] = (),
    ) -> "Estimate":
        if (low is None) != (high is None):
            raise ValueError(f"Estimate: an interval needs both ends, got low {low} and high {high}")
        if low is not None and high is not None and not low <= value <= high:
            raise ValueError(f"Estimate: {value} is outside of its interval, {low} to {high}")
        made = super().__new__(cls, value)
        made.low, made.high, made.count, made.method, made.tallies = low, high, count, method, tuple(tallies)
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return float(self), self.low, self.high, self.count, self.method, self.tallies

    def __repr__(self) -> str:
        ends = "" if self.interval is None else f", {self.low!r}, {self.high!r}"
        return f"Estimate({float(self)!r}{ends}, count={self.count})"

    @property
    def interval(self) -> Interval | None:
        """Both ends; None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    # ---- how they are made ------------------------------------------------------------------------------------------
    @classmethod
    def share(cls, outcomes: Iterable[tuple[str, Number]]) -> "Estimate | None":
        """Share of the outcomes that are true, with a Wilson interval; None of no outcomes.

        Args:
            outcomes: (prompt, outcome) of each answer; an outcome is true or false, or a number from 0 to 1.
        """
        tally = Tally.of((prompt, outcome, 1.0) for prompt, outcome in outcomes)
        if not tally.keys:
            return None
        if float(tally.sums.min()) < 0 or bool((tally.sums > tally.counts).any()):
            raise ValueError("Estimate.share: an outcome lies outside of 0 to 1; use Estimate.mean")
        interval = wilson(tally.ratio, effective_size(tally.sums, tally.counts))
        return cls(tally.ratio, *interval, round(tally.count), "share", (tally,))

    @classmethod
    def mean(cls, outcomes: Iterable[tuple[str, Number]]) -> "Estimate | None":
        """Mean of the outcomes, with a bootstrap interval over prompts; None of no outcomes.

        Args:
            outcomes: (prompt, number) of each answer.
        """
        return cls.ratio((prompt, outcome, 1.0) for prompt, outcome in outcomes)

    @classmethod
    def ratio(cls, outcomes: Iterable[tuple[str, Number, Number]]) -> "Estimate | None":
        """Sum over number, with a bootstrap interval over prompts; None of no outcomes.

        Args:
            outcomes: (prompt, sum, number) of each answer, as its log-probability and its tokens.
        """
        tally = Tally.of(outcomes)
        if not tally.keys:
            return None
        low, high = bootstrap(tally.sums, tally.counts) or (None, None)
        return cls(tally.ratio, low, high, round(tally.count), "mean", (tally,))

    @classmethod
    def average(cls, shares: Iterable["Estimate | None"]) -> "Estimate | None":
        """Average of shares, each of which counts the same; None of none.

        The parts are independent, so the distances of its interval's ends are those of theirs, squared and added.

        Args:
            shares: of different prompts; a None is left out.

        Source: Zou and Donner 2008, Statistics in Medicine 27(10) (the method of variance estimates recovery).
        """
        parts = [p for p in shares if p is not None]
        if not parts:
            return None
        size, value = len(parts), sum(map(float, parts)) / len(parts)
        ends = [p.interval for p in parts]
        if None in ends:
            raise ValueError("Estimate.average: a share has no interval; make it with Estimate.share")
        down = math.hypot(*(p - low for p, (low, _) in zip(parts, filter(None, ends), strict=True))) / size
        up = math.hypot(*(high - p for p, (_, high) in zip(parts, filter(None, ends), strict=True))) / size
        tallies = [tally for p in parts for tally in p.tallies]
        return cls(value, max(0.0, value - down), min(1.0, value + up), sum(p.count for p in parts), "share", tallies)

    @classmethod
    def statistic(cls, prompts: Sequence[str], of: Callable[[Index], float]) -> "Estimate | None":
        """A number that is not a mean (a calibration error), with a bootstrap interval over prompts; None of nothing.

        Args:
            prompts: of the answers.
            of: the number, from the places of some answers in `prompts`; one may be there several times.
        """
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(key_of(prompt), []).append(place)
        if not places:
            return None
        keys = sorted(places)
        flat = np.array([place for key in keys for place in places[key]], dtype=np.int64)
        sizes = np.array([len(places[key]) for key in keys], dtype=np.int64)
        starts = np.cumsum(sizes) - sizes

        def answers_of(picked: Index) -> Index:
            counts = sizes[picked]
            before = np.cumsum(counts) - counts
            return np.asarray(flat[np.repeat(starts[picked] - before, counts) + np.arange(counts.sum())])

        found = bootstrap_of(lambda picked: of(answers_of(picked)), len(keys))
        value = of(flat)
        if found is None:
            return cls(value, count=len(prompts))
        return cls.pulled(value, found[0], dict(zip(keys, found[1].tolist(), strict=True)), len(prompts))

    @classmethod
    def pulled(cls, value: float, interval: Interval, pulls: Mapping[str, float], count: int) -> "Estimate":
        """An estimate of which it is known how far each of two or more prompts pulls it from its value.

        Args:
            value: the number.
            interval: of it.
            pulls: by prompt; their squares add up to the variance.
            count: of the outcomes.
        """
        # Pseudo-values: a mean of them is pulled as far by each prompt.
        scale = math.sqrt(len(pulls) * (len(pulls) - 1))
        tally = Tally.of((prompt, value + scale * pull, 1.0) for prompt, pull in pulls.items())
        return cls(value, *interval, count, "mean", (tally,))

    def scaled(self, factor: float) -> "Estimate":
        """The estimate in another unit; `factor` > 0."""
        tallies = [Tally(t.keys, t.sums * factor, t.counts) for t in self.tallies]
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Estimate(float(self) * factor, low, high, self.count, self.method, tallies)

    def mapped(self, function: Callable[[float], float]) -> "Estimate":
        """The estimate of a rising function of the number (a perplexity, of a loss), of the same interval's ends."""
        low, high = (None if end is None else function(end) for end in (self.low, self.high))
        return Estimate(function(float(self)), low, high, self.count)

    def influences(self) -> dict[str, float]:
        """How far each prompt pulls the number from its value, by prompt; empty where the outcomes are not known."""
        size = max(1, len(self.tallies))
        return {
            f"{part}:{key}": pull / size
            for part, tally in enumerate(self.tallies)
            for key, pull in tally.influences().items()
        }
