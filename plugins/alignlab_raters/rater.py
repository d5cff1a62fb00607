"""Rater: one simulated person. TrueTaste: what a panel would say on reflection.

    utility(x, y) = taste . f(x, y) + bias . f(x, y) + noise * z(seed, name, x, y)

with f as the rater sees it: with probability `verify` it checks the facts, otherwise it takes a well-formed answer to
be true. *Taste* is what a rater wants, *bias* what sways it without its wanting to. Both count in its ratings; only
taste counts in its true utility. Whether it checks, and its noise, are functions of the texts.

Axes: answers.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.data.world import World
from alignlab.reward import RewardSource
from alignlab_raters.draws import normal, uniform
from alignlab_raters.features import FEATURES, KNOWLEDGE_FEATURES, TEXT_FEATURES, believed, features

Weights = Mapping[str, float]


class Rater(RewardSource):
    """One simulated person, as a reward source; scores are utilities, in reward units.

    Args:
        name: part of every draw, so that two raters of the same taste do not err together.
        taste: weight of each feature that the rater wants or rejects (see `FEATURES`).
        bias: weight of each feature that sways it.
        verify: probability that it checks the facts of an answer; needs knowledge.
        noise: standard deviation of the noise in its ratings, in reward units.
        knowledge: the world that the answers are about; null rates by the text alone.
        seed: of its draws.
    """

    VERSION: ClassVar[str] = "2"

    def __init__(
        self,
        name: str,
        taste: Weights,
        bias: Weights | None = None,
        verify: float = 1.0,
        noise: float = 0.0,
        knowledge: World | None = None,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.taste = dict(taste)
        self.bias = dict(bias or {})
        self.verify = verify
        self.noise = noise
        self.knowledge = knowledge
        self.seed = seed
        if not 0 <= verify <= 1:
            raise ValueError(f"Rater {name}: verify must be a probability, got {verify}")
        if noise < 0:
            raise ValueError(f"Rater {name}: noise must be >= 0, got {noise}; it is a standard deviation")
        self._check_names()

    def _check_names(self) -> None:
        named = self.taste.keys() | self.bias.keys()
        unknown = sorted(named - FEATURES)
        if unknown:
            known = ", ".join(sorted(FEATURES))
            raise ValueError(f"Rater {self.name}: no feature {', '.join(unknown)}; there are {known}")
        needed = sorted(named & KNOWLEDGE_FEATURES)
        if self.knowledge is None and needed:
            raise ValueError(
                f"Rater {self.name}: {', '.join(needed)} cannot be told from the text alone; set knowledge to the "
                f"world that the answers are about, or use {', '.join(sorted(TEXT_FEATURES))}"
            )

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """The utility of each answer to this rater."""
        return _tensor([self.utility(p, a) for p, a in zip(prompts, answers, strict=True)])

    def utility(self, prompt: Prompt, answer: str) -> float:
        """The sum of taste, bias and noise for the answer as this rater sees it."""
        seen = self.seen(prompt, answer)
        mood = self.noise * normal(self.seed, self.name, "noise", prompt.text, answer) if self.noise else 0.0
        return _dot(self.taste, seen) + _dot(self.bias, seen) + mood

    def seen(self, prompt: Prompt, answer: str) -> dict[str, float]:
        """Every feature of the answer as this rater sees it, after its check of the facts, or without one."""
        there = features(prompt, answer, self.knowledge)
        return there if self.knowledge is None or self.checks(prompt, answer) else believed(there)

    def describe(self) -> str:
        """Name, taste and bias."""
        bias = f"; bias {_listed(self.bias)}" if self.bias else ""
        return f"Rater {self.name} ({_listed(self.taste)}{bias})"

    def checks(self, prompt: Prompt, answer: str) -> bool:
        """Whether this rater checks the facts of this answer."""
        return uniform(self.seed, self.name, "verify", prompt.text, answer) < self.verify

    def true_utility(self, prompt: Prompt, answer: str) -> float:
        """Utility on reflection: the taste alone, with the facts checked."""
        return _dot(self.taste, features(prompt, answer, self.knowledge))


class TrueTaste(RewardSource):
    """The mean of what some raters would say on reflection: no bias, no noise, and every fact checked.

    Args:
        raters: by name.
        shares: weight of each in the mean; null counts them alike.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, raters: Mapping[str, Rater], shares: Weights | None = None) -> None:
        self.raters = dict(raters)
        self.shares = normalised(type(self).__name__, self.raters, shares)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """The mean true utility of each answer."""
        return _tensor([self._mean(p, a) for p, a in zip(prompts, answers, strict=True)])

    def describe(self) -> str:
        """The tastes that it is the mean of; another panel's is another yardstick."""
        alike = len(set(self.shares.values())) == 1
        names = {name: name if alike else f"{name} {share:.0%}" for name, share in self.shares.items()}
        return f"TrueTaste of {'; '.join(f'{names[n]} ({_listed(r.taste)})' for n, r in self.raters.items())}"

    def _mean(self, prompt: Prompt, answer: str) -> float:
        return sum((self.shares[n] * r.true_utility(prompt, answer) for n, r in self.raters.items()), 0.0)


def normalised(
    owner: str, raters: Mapping[str, object], shares: Weights | None, what: str = "raters"
) -> dict[str, float]:
    """The share of each rater (or of `what` it is), adding up to 1; equal ones where none are given."""
    if not raters:
        raise ValueError(f"{owner}: {what} is empty; name at least one")
    given = dict(shares) if shares else dict.fromkeys(raters, 1.0)
    if given.keys() != raters.keys():
        raise ValueError(f"{owner}: shares are of {sorted(given)}, {what} are {sorted(raters)}; name the same")
    if min(given.values()) < 0 or sum(given.values()) <= 0:
        raise ValueError(f"{owner}: shares must be >= 0 and not all 0, got {given}")
    return {name: given[name] / sum(given.values()) for name in raters}


def _listed(weights: Weights) -> str:
    return ", ".join(f"{name} {weight:+g}" for name, weight in weights.items())


def _dot(weights: Weights, seen: Weights) -> float:
    return sum((w * seen[name] for name, w in weights.items()), 0.0)


def _tensor(values: Sequence[float]) -> Float[Tensor, "answers"]:
    return torch.tensor(values, dtype=torch.float32)
