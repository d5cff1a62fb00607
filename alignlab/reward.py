"""RewardSource: scores answers. Preference: turns scores into choices.

Axes: answers.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from alignlab.data.records import Prompt


class RewardSource(abc.ABC):
    """Scores answers in reward units; higher is better.

    A score depends on its own prompt and answer alone: not on the other answers, their order, the batch size or the
    process. Where a source is noisy, its noise is a function of (seed, prompt, answer).
    """

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """One finite score for each answer.

        Args:
            prompts: the conversation before each answer; as many as answers.
            answers: texts without special tokens.
        """


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, in the order in which a rater sees them."""

    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True)
class Choice:
    """One judgement, with the truth that only a simulated rater can tell.

    Args:
        first: true when the first answer was preferred.
        probability: the true probability that the first would be preferred.
        rater: who judged.
    """

    first: bool
    probability: float
    rater: str


class Preference(abc.ABC):
    """Turns pairs into choices by a stated choice model.

    Position bias, drift and fatigue live here: they depend on `index`, the number of the judgement, and on nothing
    else that came before, so that judgements can be made in any order and on any process.
    """

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """One choice for each pair; `index` numbers the judgements over the whole labelling stage."""
