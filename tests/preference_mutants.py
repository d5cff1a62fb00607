"""Preferences with one fault each; in a module of their own, as a new process must be able to import them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar

import torch

from alignlab.reward import Choice, Pair, Preference


@dataclass(frozen=True)
class Honest(Preference):
    """Prefers short answers; a longer one may still be preferred, with a probability that is stated."""

    VERSION: ClassVar[str] = "1"
    rater: str = "short"
    position_bias: float = 0.0

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        return [self.judge(pair, i) for pair, i in zip(pairs, index, strict=True)]

    def judge(self, pair: Pair, index: int) -> Choice:
        p = self.probability(pair)
        return Choice(self.draw(pair, index) < p, p, self.rater)

    def probability(self, pair: Pair) -> float:
        gap = len(pair.second) - len(pair.first) + self.position_bias
        return 1 / (1 + 2.0 ** (-max(-20.0, min(20.0, gap / 40))))

    def draw(self, pair: Pair, index: int) -> float:
        return Random(f"{index}:{pair.prompt.text}:{pair.first}:{pair.second}").random()


class NoVersion(Honest):
    """Inherits what it should state."""


@dataclass
class Thawed(Preference):
    """Can be changed after construction."""

    VERSION: ClassVar[str] = "1"
    rater: str = "anybody"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        return [Choice(True, 1.0, self.rater) for _ in pairs]


class Percent(Honest):
    """States its probability in percent."""

    VERSION: ClassVar[str] = "1"

    def judge(self, pair: Pair, index: int) -> Choice:
        choice = super().judge(pair, index)
        return replace(choice, probability=100 * choice.probability)


class Nameless(Honest):
    """Does not say who judged."""

    VERSION: ClassVar[str] = "1"

    def judge(self, pair: Pair, index: int) -> Choice:
        return replace(super().judge(pair, index), rater="")


class NeedsOne(Honest):
    """Cannot judge nothing."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        assert max(index) >= 0
        return super().compare(pairs, index)


class Relative(Honest):
    """Judges lengths against the mean of whatever is asked together."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        mean = sum(len(p.first) + len(p.second) for p in pairs) / max(1, 2 * len(pairs))
        return [Choice(len(p.first) < mean, float(len(p.first) < mean), self.rater) for p in pairs]


class ByPlace(Honest):
    """Draws by the place in the list, not by the number of the judgement."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        return super().compare(pairs, range(len(pairs)))


class GlobalDraws(Honest):
    """Draws from the global generator."""

    VERSION: ClassVar[str] = "1"

    def draw(self, pair: Pair, index: int) -> float:
        return float(torch.rand(()))


@dataclass(frozen=True)
class Tiring(Honest):
    """Counts its judgements, and takes the first answer from the sixth on."""

    VERSION: ClassVar[str] = "1"
    judged: list[int] = field(default_factory=list)

    def judge(self, pair: Pair, index: int) -> Choice:
        self.judged.append(index)
        return Choice(True, 1.0, self.rater) if len(self.judged) > 6 else super().judge(pair, index)


class Hashing(Honest):
    """Draws by `hash`, which differs between processes."""

    VERSION: ClassVar[str] = "1"

    def draw(self, pair: Pair, index: int) -> float:
        return hash((index, pair.first, pair.second)) % 97 / 97


class OfTheChosen(Honest):
    """States the probability of whichever answer was chosen."""

    VERSION: ClassVar[str] = "1"

    def judge(self, pair: Pair, index: int) -> Choice:
        choice = super().judge(pair, index)
        return choice if choice.first else replace(choice, probability=1 - choice.probability)


class FirstIsBetter(Honest):
    """Favours the first answer, without an argument for it."""

    VERSION: ClassVar[str] = "1"

    def probability(self, pair: Pair) -> float:
        return 0.2 + 0.8 * super().probability(pair)


class Unsendable(Honest):
    """Holds something that cannot leave its process."""

    VERSION: ClassVar[str] = "1"

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a socket")
