"""Reward sources with one fault each; in a module of their own, as a new process must be able to import them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.reward import RewardSource, Scores


@dataclass(frozen=True)
class Honest(RewardSource):
    """A reward for length, in words."""

    VERSION: ClassVar[str] = "1"
    weight: float = 0.1

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return torch.tensor([self.weight * len(a.split()) for a in answers], dtype=torch.float32)


class NoVersion(Honest):
    """Inherits what it should state."""


@dataclass
class Thawed(RewardSource):
    """Can be changed after construction."""

    VERSION: ClassVar[str] = "1"
    weight: float = 0.1

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return torch.full((len(answers),), self.weight)


class MeanLength(Honest):
    """Divides by the number of words, also when there is none."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        words = torch.tensor([float(len(a.split())) for a in answers])
        return torch.tensor([float(len(a)) for a in answers]) / words


class Listed(Honest):
    """Gives a list, not a tensor."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Any:
        return super().score(prompts, answers).tolist()


class NeedsOne(Honest):
    """Cannot score nothing."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return torch.stack([torch.tensor(float(len(a))) for a in answers])


class Whitened(Honest):
    """Normalises over whatever was asked for together."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        raw = super().score(prompts, answers)
        return raw - raw.sum() / max(len(raw), 1)


class NoiseByPlace(Honest):
    """Its noise depends on the place in the list."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return super().score(prompts, answers) + 0.1 * torch.arange(len(answers))


class GlobalNoise(Honest):
    """Its noise is drawn from the global generator."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return super().score(prompts, answers) + torch.randn(len(answers))


@dataclass(frozen=True)
class Tiring(Honest):
    """Gets stricter with every call."""

    VERSION: ClassVar[str] = "1"
    calls: list[int] = field(default_factory=list)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        self.calls.append(1)
        return super().score(prompts, answers) - 0.1 * len(self.calls)


class Hashing(Honest):
    """Its noise comes from `hash`, which differs between processes."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return super().score(prompts, answers) + torch.tensor([hash(a) % 97 for a in answers]) / 97


class Unsendable(Honest):
    """Holds something that cannot leave its process."""

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle a socket")


@dataclass(frozen=True)
class WithParts(Honest):
    """Its two parts are words and letters; the score is their sum."""

    VERSION: ClassVar[str] = "1"
    parts = ("words", "letters")

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return self.score_in_parts(prompts, answers).total

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        words, letters = super().score(prompts, answers), torch.tensor([len(a) for a in answers], dtype=torch.float32)
        return Scores(words + letters, {"words": words, "letters": letters})


class AnotherTotal(WithParts):
    """Its parts are of another score than `score` gives."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return 2 * super().score(prompts, answers)


class PartsOfTheBatch(WithParts):
    """A part is relative to the other answers."""

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        found = super().score_in_parts(prompts, answers)
        return Scores(found.total, {**found.parts, "words": found.parts["words"] - found.parts["words"].sum()})
