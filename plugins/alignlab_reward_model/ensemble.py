"""Ensembles of reward models: their mean, their worst case, their mean less a price on their disagreement.

Axes: answers, members.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import Scores
from alignlab.data.records import Prompt
from alignlab_reward_model.rewards import FromModels, check_name

DISAGREEMENT = "disagreement"
"""Part of an ensemble's reward: the standard deviation of its members' scores."""


@dataclass(frozen=True)
class Ensemble(FromModels):
    """Reward of an answer by several members; abstract. Each member, and their disagreement, is logged.

    The disagreement is the standard deviation over the members (divided by their number): where it grows, the policy
    is leaving what the models were trained on. Members should score on one scale: a Bradley-Terry model's scores are
    free by a constant for each prompt, which would count as disagreement; train them with `objective.centering` above
    0, or on ratings.

    Args:
        members: two or more: INPUT, an input of the stage that is a reward model of one attribute; or INPUT.ATTRIBUTE,
            one head of a model of several.
    """

    members: Sequence[str]

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if len(set(self.members)) < 2 or len(set(self.members)) < len(self.members):
            raise ValueError(f"{owner}: members must be two or more different inputs, got {list(self.members)}")
        for member in self.members:
            check_name(owner, member)
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"{owner}: its parts would be logged as {', '.join(self.parts)}; two are the same")

    @abc.abstractmethod
    def combine(
        self, scores: Float[Tensor, "members answers"], disagreement: Float[Tensor, "answers"]
    ) -> Float[Tensor, "answers"]:
        """The reward, from the members' scores and their standard deviation."""

    @property
    def inputs(self) -> Sequence[str]:
        """The models that members are heads of."""
        return tuple(dict.fromkeys(member.partition(".")[0] for member in self.members))

    @property
    def parts(self) -> Sequence[str]:
        """The members, with an underscore for the dot, and their disagreement."""
        return (*(member.replace(".", "_") for member in self.members), DISAGREEMENT)

    def check_attributes(self) -> None:
        """Every member is a head of its model."""
        for member in self.members:
            name, _, attribute = member.partition(".")
            self.column(name, attribute)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """The combined reward."""
        return self.score_in_parts(prompts, answers).total

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """The combined reward, the score of each member and their disagreement, in one pass of each model."""
        known = {name: self.model(name).scores(prompts, answers) for name in self.inputs}
        members = [member.partition(".") for member in self.members]
        scores = torch.stack([known[name][:, self.column(name, attribute)] for name, _, attribute in members])
        disagreement = (scores - scores.mean(0)).square().mean(0).sqrt()  # Tensor.std warns where there is no answer
        parts = dict(zip(self.parts, (*scores, disagreement), strict=True))
        return Scores(self.combine(scores, disagreement), parts)

    def describe(self) -> str:
        """How the members are combined, and which they are."""
        return f"{type(self).__name__} of {', '.join(self.members)}"


@dataclass(frozen=True)
class EnsembleMean(Ensemble):
    """The members' mean.

    Args:
        members: see `Ensemble`.

    Source: Coste et al. 2023, arXiv:2310.02743, section 3.2.
    """

    VERSION: ClassVar[str] = "1"

    def combine(
        self, scores: Float[Tensor, "members answers"], disagreement: Float[Tensor, "answers"]
    ) -> Float[Tensor, "answers"]:
        """The mean."""
        return scores.mean(0)


@dataclass(frozen=True)
class WorstCase(Ensemble):
    """The lowest score of any member: what one of them doubts earns nothing.

    Args:
        members: see `Ensemble`.

    Source: Coste et al. 2023, arXiv:2310.02743, section 3.2 (worst-case optimisation).
    """

    VERSION: ClassVar[str] = "1"

    def combine(
        self, scores: Float[Tensor, "members answers"], disagreement: Float[Tensor, "answers"]
    ) -> Float[Tensor, "answers"]:
        """The minimum."""
        return scores.amin(0)


@dataclass(frozen=True)
class Pessimistic(Ensemble):
    """The members' mean less a price on their disagreement: `mean - price * standard deviation`.

    Args:
        members: see `Ensemble`.
        price: >= 0; standard deviations that are taken off. 0 is the mean; with two members, 1 is the worst case.

    Source: Coste et al. 2023, arXiv:2310.02743, section 3.2 (uncertainty-weighted optimisation), who take off the
    variance: its price would be per reward unit, so that it depends on the scale of the scores.
    """

    VERSION: ClassVar[str] = "1"
    price: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.price < 0:
            raise ValueError(f"Pessimistic: price must be >= 0, got {self.price}; it is taken off per deviation")

    def combine(
        self, scores: Float[Tensor, "members answers"], disagreement: Float[Tensor, "answers"]
    ) -> Float[Tensor, "answers"]:
        """The mean less the priced disagreement."""
        return scores.mean(0) - self.price * disagreement
