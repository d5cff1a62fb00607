"""Panel: several raters take turns to prefer one of two answers, or to rank more of them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.reward import Candidates, Choice, Order, Pair, Preference, Ranker
from alignlab_raters.choice import Bradley
from alignlab_raters.draws import gumbel, uniform
from alignlab_raters.rater import Rater, normalised


class Panel(Preference, Ranker):
    """Each judgement is one rater's; which one, and how the choice falls, are functions of its number and texts.

    Rankings of more answers are the same choice, repeated among those that are left.

    Args:
        raters: by name.
        shares: of the judgements that each makes; null gives all the same.
        temperature: see `Bradley`.
        position_bias: see `Bradley`.
        flip: see `Bradley`.
        seed: of the draws.
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
    ) -> None:
        self.raters = dict(raters)
        self.shares = normalised(type(self).__name__, self.raters, shares)
        self.temperature = temperature
        self.position_bias = position_bias
        self.flip = flip
        self.seed = seed
        self._model = Bradley(temperature, position_bias, flip)

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """One rater's choice for each pair, with the probability that it had."""
        return [self._judge(pair, i) for pair, i in zip(pairs, index, strict=True)]

    def rank(self, lists: Sequence[Candidates], index: Sequence[int]) -> list[Order]:
        """One rater's ranking of each list, with the probability that it had: the choice, repeated."""
        return [self._rank(shown, i) for shown, i in zip(lists, index, strict=True)]

    def rater_of(self, index: int) -> str:
        """Name of the rater who makes judgement `index`."""
        left = uniform(self.seed, "rater", index)
        for name, share in self.shares.items():
            left -= share
            if left < 0:
                return name
        return next(reversed(self.shares))

    def probability(self, rater: str, pair: Pair) -> float:
        """That this rater prefers the first answer."""
        utility = self.raters[rater].utility
        return self._model.probability(utility(pair.prompt, pair.first) - utility(pair.prompt, pair.second))

    def _judge(self, pair: Pair, index: int) -> Choice:
        name = self.rater_of(index)
        probabilities = {rater: self.probability(rater, pair) for rater in self.raters}
        pooled = sum(self.shares[rater] * p for rater, p in probabilities.items())
        draw = uniform(self.seed, name, "choice", index, pair.prompt.text, pair.first, pair.second)
        return Choice(draw < probabilities[name], probabilities[name], name, pooled)

    def _rank(self, shown: Candidates, index: int) -> Order:
        name = self.rater_of(index)
        utilities = [self.raters[name].utility(shown.prompt, answer) for answer in shown.answers]
        drawn = (self.seed, name, "ranking", index, shown.prompt.text)
        noise = [gumbel(*drawn, place, answer) for place, answer in enumerate(shown.answers)]
        places = self._model.places(utilities, noise, uniform(*drawn, "turned", *shown.answers))
        return Order(places, self._model.probability_of(places, utilities), name)
