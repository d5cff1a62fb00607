"""Panel: several raters take turns to prefer one of two answers, or to rank more of them. Groups: several panels."""

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from alignlab.reward import Candidates, Choice, Order, Pair, Preference, Ranker
from alignlab_raters.choice import Bradley, temperature_for
from alignlab_raters.draws import gumbel, uniform
from alignlab_raters.rater import Rater, normalised


@dataclass(frozen=True)
class Member:
    """One rater of a panel.

    Args:
        name: stands with its judgements.
        rater: its utilities.
        share: of the judgements, 0 to 1.
        model: how its utilities become choices.
    """

    name: str
    rater: Rater
    share: float
    model: Bradley


class Judges(Preference, Ranker):
    """Each judgement is one member's; which one, and how the choice falls, are functions of its number and texts.

    Rankings of more answers are the same choice, repeated among those that are left.
    """

    seed: int

    @property
    @abc.abstractmethod
    def members(self) -> Sequence[Member]:
        """Its raters, whose shares add up to 1."""

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """One rater's choice for each pair, with the probability that it had."""
        return [self._judge(self._members_of(i, 1)[0], pair, i) for pair, i in zip(pairs, index, strict=True)]

    def compare_each(self, shown: Sequence[Sequence[Pair]], index: Sequence[int]) -> list[list[Choice]]:
        """Several choices for each pair. No rater whose share is at most 1/n makes two of n judgements of a pair."""
        return [
            [
                self._judge(member, pair, i * len(judged) + k)
                for k, (member, pair) in enumerate(zip(self._members_of(i, len(judged)), judged, strict=True))
            ]
            for judged, i in zip(shown, index, strict=True)
        ]

    def rank(self, lists: Sequence[Candidates], index: Sequence[int]) -> list[Order]:
        """One rater's ranking of each list, with the probability that it had: the choice, repeated."""
        return [self._rank(self._members_of(i, 1)[0], shown, i) for shown, i in zip(lists, index, strict=True)]

    def rater_of(self, index: int) -> str:
        """Name of the rater who makes judgement `index`."""
        return self._members_of(index, 1)[0].name

    def probability(self, rater: str, pair: Pair, index: int = 0) -> float:
        """That this rater prefers the first answer."""
        (member,) = [m for m in self.members if m.name == rater]
        return member.model.at(index).probability(_gap(member, pair))

    def _members_of(self, index: int, times: int) -> list[Member]:
        """The maker of each judgement of a pair: points at equal distances along the shares, from a drawn one on."""
        start = uniform(self.seed, "rater", index)
        return [self._member_at((start + k / times) % 1) for k in range(times)]

    def _member_at(self, left: float) -> Member:
        for member in self.members:
            left -= member.share
            if left < 0:
                return member
        return self.members[-1]

    def _judge(self, judge: Member, pair: Pair, index: int) -> Choice:
        gaps = {m.name: _gap(m, pair) for m in self.members}
        probabilities = {m.name: m.model.at(index).probability(gaps[m.name]) for m in self.members}
        pooled = sum(m.share * probabilities[m.name] for m in self.members)
        about = (index, pair.prompt.text, pair.first, pair.second)
        draw = uniform(self.seed, judge.name, "choice", *about)
        tie = judge.model.at(index).tie_probability(gaps[judge.name])
        first, second = (judge.rater.seen(pair.prompt, answer) for answer in (pair.first, pair.second))
        return Choice(
            draw < probabilities[judge.name],
            probabilities[judge.name],
            judge.name,
            pooled,
            tie > 0 and uniform(self.seed, judge.name, "tie", *about) < tie,
            tie,
            draw,
            {feature: (first[feature], second[feature]) for feature in first},
            _weights(judge, first, index),
            judge.model.flip,
        )

    def _rank(self, judge: Member, shown: Candidates, index: int) -> Order:
        model = judge.model.at(index)
        utilities = [judge.rater.utility(shown.prompt, answer) for answer in shown.answers]
        drawn = (self.seed, judge.name, "ranking", index, shown.prompt.text)
        noise = [gumbel(*drawn, place, answer) for place, answer in enumerate(shown.answers)]
        places = model.places(utilities, noise, uniform(*drawn, "turned", *shown.answers))
        return Order(places, model.probability_of(places, utilities), judge.name)


def _weights(member: Member, seen: Iterable[str], index: int) -> dict[str, float]:
    """Log-odds per unit of each feature that a rater sees, and for what is shown first, at one judgement."""
    model, rater = member.model.at(index), member.rater
    weights = {name: rater.taste.get(name, 0.0) + rater.bias.get(name, 0.0) for name in seen}
    return {name: weight / model.temperature for name, weight in {**weights, "position": model.position_bias}.items()}


def _gap(member: Member, pair: Pair) -> float:
    utility = member.rater.utility
    return utility(pair.prompt, pair.first) - utility(pair.prompt, pair.second)


class Panel(Judges):
    """Raters who differ in taste, bias and attention, and turn utilities into choices in the same way.

    Args:
        raters: by name.
        shares: of the judgements that each makes; null gives all the same.
        temperature: see `Bradley`; not used where `target_agreement` is given.
        position_bias: see `Bradley`.
        flip: see `Bradley`.
        seed: of the draws.
        target_agreement: how often two raters of like mind choose alike, where their utilities are normal with the
            standard deviation `utility_spread`; sets the temperature. Null leaves it.
        utility_spread: standard deviation of the utilities of answers to one prompt, reward units; > 0.
        ties: see `Bradley`.
        fatigue: see `Bradley`.
        drift: see `Bradley`.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(
        self,
        raters: Mapping[str, Rater],
        shares: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        position_bias: float = 0.0,
        flip: float = 0.0,
        seed: int = 0,
        target_agreement: float | None = None,
        utility_spread: float = 1.0,
        ties: float = 0.0,
        fatigue: float = 0.0,
        drift: float = 0.0,
    ) -> None:
        if utility_spread <= 0:
            raise ValueError(f"Panel: utility_spread must be > 0, got {utility_spread}; it is a standard deviation")
        self.raters = dict(raters)
        self.shares = normalised(type(self).__name__, self.raters, shares)
        self.temperature = temperature
        self.position_bias = position_bias
        self.flip = flip
        self.seed = seed
        self.target_agreement = target_agreement
        self.utility_spread = utility_spread
        self.ties = ties
        self.fatigue = fatigue
        self.drift = drift
        if target_agreement is not None:
            temperature = utility_spread * temperature_for(target_agreement, flip)
        model = Bradley(temperature, position_bias, flip, ties, fatigue, drift)
        self._members = tuple(Member(name, rater, self.shares[name], model) for name, rater in self.raters.items())

    @property
    def members(self) -> Sequence[Member]:
        """Its raters."""
        return self._members


class Groups(Judges):
    """Groups of raters with a choice model of their own each: P(first) = sum over groups of share times the group's.

    A rater's name is GROUP/RATER. Attention and noise are drawn by each rater's own `name`, as ever, and the choices by
    this seed and that name; the panels' own seeds are not used.

    Args:
        groups: panels by name.
        shares: of the judgements that each group makes; null gives all the same.
        seed: of the draws.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, groups: Mapping[str, Panel], shares: Mapping[str, float] | None = None, seed: int = 0) -> None:
        self.groups = dict(groups)
        self.shares = normalised(type(self).__name__, self.groups, shares, "groups")
        self.seed = seed
        self._members = tuple(
            Member(f"{name}/{m.name}", m.rater, self.shares[name] * m.share, m.model)
            for name, panel in self.groups.items()
            for m in panel.members
        )

    @property
    def members(self) -> Sequence[Member]:
        """The raters of all groups."""
        return self._members
