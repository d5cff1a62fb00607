"""Trained reward models as rewards: what they have in common, and one model with a weighting of its attributes.

The models are inputs of the stage: a source names them (`inputs`), and the stage hands them over (`with_models`).

Axes: answers.
"""

import abc
import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import RewardSource, ScoreModel, Scores
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")


class FromModels(RewardSource):
    """A reward that reward models among the stage's inputs score."""

    _models: Mapping[str, ScoreModel] = {}

    def with_models(self, models: Mapping[str, ScoreModel]) -> Self:
        """The same reward with its models, whose attributes are checked."""
        found = copy.copy(self)
        object.__setattr__(found, "_models", {name: models[name] for name in self.inputs})
        found.check_attributes()
        return found

    @abc.abstractmethod
    def check_attributes(self) -> None:
        """Refuse models that lack an attribute which the reward names.

        Raises:
            ConfigError: names the input, the attribute, and those that there are.
        """

    def model(self, name: str) -> ScoreModel:
        """The model of an input.

        Raises:
            ConfigError: there is none yet.
        """
        if name not in self._models:
            raise ConfigError(
                f"{type(self).__name__}: scores with reward models that are inputs of its stage "
                f"({', '.join(self.inputs)}); only online stages and best_of_n have such inputs"
            )
        return self._models[name]

    def column(self, name: str, attribute: str) -> int:
        """Place of an attribute among those of an input; of its only one where none is named."""
        known = list(self.model(name).attributes)
        if attribute in known or (not attribute and len(known) == 1):
            return known.index(attribute) if attribute else 0
        raise ConfigError(
            f"{type(self).__name__}: inputs.{name} scores {', '.join(known)}; "
            + (f"there is no {attribute!r}" if attribute else "name one of them, or weigh them")
        )


@dataclass(frozen=True)
class ModelReward(FromModels):
    """Score of a reward model, or a weighting of its attributes: `sum over attributes of weight * score`.

    Args:
        input: name of the stage's input that is the reward model.
        weights: of attributes by name, in reward units per unit of their ratings; one alone names an attribute. Null
            takes the only attribute of a model of one.

    Source: Wang et al. 2024 (ArmoRM), arXiv:2406.12845, section 2.2, with fixed weights.
    """

    VERSION: ClassVar[str] = "1"
    input: str = "reward"
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not self.weights:
            raise ValueError("ModelReward: weights is empty; name an attribute, or set it to null")
        for name, weight in (self.weights or {}).items():
            check_name("ModelReward", name)
            if not math.isfinite(weight):
                raise ValueError(f"ModelReward: the weight of {name} must be finite, got {weight}")

    @property
    def inputs(self) -> Sequence[str]:
        """The one model."""
        return (self.input,)

    @property
    def parts(self) -> Sequence[str]:
        """The attributes that are weighed."""
        return tuple(self.weights or ())

    def check_attributes(self) -> None:
        """Every attribute that is weighed is one of the model's."""
        for attribute in self.weights or ("",):
            self.column(self.input, attribute)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """The weighted sum."""
        return self.score_in_parts(prompts, answers).total

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """The weighted sum, and the score by each attribute, in one pass of the model."""
        weights = self.weights or {"": 1.0}
        scores = self.model(self.input).scores(prompts, answers)
        found = {name: scores[:, self.column(self.input, name)] for name in weights}
        total = torch.stack([weight * found[name] for name, weight in weights.items()]).sum(0)
        return Scores(total, {name: found[name] for name in self.parts})

    def describe(self) -> str:
        """The input, or the weighted attributes."""
        if self.weights is None:
            return f"the model {self.input}"
        return " + ".join(f"{weight:g} {name}" for name, weight in self.weights.items()) + f" by {self.input}"


def check_name(owner: str, name: str) -> None:
    """Refuse a name of a member or an attribute that could not name a metric.

    Raises:
        ValueError: names `owner`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{owner}: {name!r} cannot name a metric; use small letters, digits and underscores")
