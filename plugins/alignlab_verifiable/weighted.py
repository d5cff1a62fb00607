"""Weighted: a sum of several rewards, each of which is logged."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import RewardSource, Scores
from alignlab.data.records import Prompt
from alignlab.reward import ScoreModel, score_in_parts


@dataclass(frozen=True)
class Weighted(RewardSource):
    """`sum over names of weight * score`; each score and its own parts are also reported, unweighted.

    A weight of 0 reports a score that nothing is learnt from: what simulated raters truly want, next to the reward.

    Args:
        rewards: reward sources by name; a stage logs `reward_NAME` for each, and `reward_NAME_PART` for each of
            its parts.
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
        if twice := sorted(name for name, count in Counter(self.parts).items() if count > 1):
            raise ValueError(f"Weighted: two scores would be logged as {twice[0]}; rename one of the rewards")

    @property
    def parts(self) -> Sequence[str]:
        """The names of the rewards; after each, those of its own parts as `NAME_PART`."""
        return tuple(
            part for name, source in self.rewards.items() for part in (name, *(f"{name}_{p}" for p in source.parts))
        )

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
        """The weighted sum, and each score with its parts, as its source gives them."""
        found = {name: score_in_parts(source, prompts, answers) for name, source in self.rewards.items()}
        total, parts = torch.zeros(len(answers)), dict[str, Float[Tensor, "answers"]]()
        for name, scores in found.items():
            total = total + self.weights[name] * scores.total.float()
            parts[name] = scores.total.float()
            parts |= {f"{name}_{part}": values.float() for part, values in scores.parts.items()}
        return Scores(total, parts)

    def describe(self) -> str:
        """The sum, such as `0.9 Number + 0.1 Format`."""
        return " + ".join(f"{self.weights[name]:g} {source.describe()}" for name, source in self.rewards.items())
