"""RewardSource: scores answers. Preference: turns scores into choices.

Axes: answers.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.errors import NonFiniteError


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

    def describe(self) -> str:
        """Name of the scale of its scores, in a few words; it distinguishes the source from others of its class.

        It is shown with every mean reward, and two models that were measured by different ones are not compared.
        """
        return type(self).__name__

    def content_digest(self) -> str:
        """Digest of everything read from outside (a word list, say); empty where all follows from the arguments.

        It is part of the fingerprint of every stage that uses the source.
        """
        return ""


def score(source: RewardSource, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
    """The source's scores, checked where they are asked for.

    Returns:
        `(answers,)` reward units, floating point, on the CPU.

    Raises:
        ValueError: they are not a floating-point tensor with one score per answer.
        NonFiniteError: one is NaN or infinite; the message quotes the answer.
    """
    name = type(source).__name__
    found: object = source.score(prompts, answers)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        what = f"a tensor of {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"{name}: score() must return a floating-point tensor, got {what}; use torch.tensor([...])")
    if tuple(found.shape) != (len(answers),):
        raise ValueError(f"{name}: score() got {len(answers)} answers and returned shape {tuple(found.shape)}")
    found = found.detach().cpu()
    bad = (~torch.isfinite(found)).nonzero()[:, 0].tolist()
    if bad:
        first = bad[0]
        raise NonFiniteError(
            f"{name}: scored {float(found[first])} for the answer {answers[first]!r} to {prompts[first].text!r}; a "
            f"reward must be finite"
        )
    return found


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
        probability: the true probability that this rater would prefer the first.
        rater: who judged.
        pooled_probability: the probability before it is known who judges, averaged over the raters by their
            shares of the judgements; None where that is not known.
    """

    first: bool
    probability: float
    rater: str
    pooled_probability: float | None = None


class Preference(abc.ABC):
    """Turns pairs into choices by a stated choice model.

    Position bias, drift and fatigue live here: they depend on `index`, the number of the judgement, and on nothing
    else that came before, so that judgements can be made in any order and on any process.
    """

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """One choice for each pair; `index` numbers the judgements over the whole labelling stage."""
