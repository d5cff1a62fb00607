"""Weighted: a sum of several rewards, each of which is logged."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import RewardSource, Scores
from alignlab.data.records import Prompt
from alignlab.reward import ScoreModel, score


@dataclass(frozen=True)
class Weighted(RewardSource):
    """`sum over names of weight * score`; each score is also reported by its name, unweighted.

    Args:
        rewards: reward sources by name; a stage logs `reward_NAME` for each.
        weights: one for each name; below 0 it is a price.
    """

    VERSION: ClassVar[str] = "1"
    rewards: Mapping[str, RewardSource]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("Weighted: rewards is empty; name at least one")
        if unfit := [name for name in self.rewards if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]:
            raise ValueError(f"Weighted: {unfit[0]!r} cannot name a metric; use small letters, digits and underscores")
        if missing := sorted(self.rewards.keys() ^ self.weights.keys()):
            raise ValueError(
                f"Weighted: rewards are {sorted(self.rewards)} and weights {sorted(self.weights)}; "
                f"{missing[0]} needs both"
            )
        if bad := {k: w for k, w in self.weights.items() if not math.isfinite(w)}:
            raise ValueError(f"Weighted: weights must be finite, got {bad}")

    @property
    def parts(self) -> Sequence[str]:
        """The names of the rewards."""
        return tuple(self.rewards)

    @property
    def inputs(self) -> Sequence[str]:
        """Those that any of the rewards scores with."""
        return tuple(dict.fromkeys(name for source in self.rewards.values() for name in source.inputs))

    def with_models(self, models: Mapping[str, ScoreModel]) -> "Weighted":
        """The same sum, each reward with its models."""
        return replace(self, rewards={name: source.with_models(models) for name, source in self.rewards.items()})

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """The weighted sum."""
        return self.score_in_parts(prompts, answers).total

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """The weighted sum, and each score as its source gives it."""
        parts = {name: score(source, prompts, answers).float() for name, source in self.rewards.items()}
        total = torch.zeros(len(answers))
        for name, part in parts.items():
            total = total + self.weights[name] * part
        return Scores(total, parts)

    def describe(self) -> str:
        """The sum, such as `0.9 Number + 0.1 Format`."""
        return " + ".join(f"{self.weights[name]:g} {source.describe()}" for name, source in self.rewards.items())
