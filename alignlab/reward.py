"""RewardSource: scores answers, as one number or as a sum with its parts. Preference, Ranker: turn scores into choices.

Axes: answers, attributes.
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.errors import NonFiniteError


@dataclass(frozen=True)
class Scores:
    """Scores of some answers, with the parts that they are made of.

    Args:
        total: one score per answer, reward units: what is learnt from.
        parts: further scores of the same answers by name, each in units of its own; they are logged.
    """

    total: Float[Tensor, "answers"]
    parts: Mapping[str, Float[Tensor, "answers"]] = field(default_factory=dict)


class ScoreModel(abc.ABC):
    """A reward model as a reward source sees it: a score of each answer by each of its attributes.

    Args:
        attributes: their names.
    """

    attributes: Sequence[str]

    @abc.abstractmethod
    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers attributes"]:
        """The scores of each answer, reward units; each depends on its own prompt and answer alone."""


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

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts that the score is made of; empty for a source of one piece.

        Online stages log each as `reward_NAME`, and an evaluation called `accuracy` measures it as `accuracy_NAME`.
        """
        return ()

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        """The score, and each of `parts`, in one pass over the answers.

        A source with parts overrides it, and returns its total as `score`.
        """
        return Scores(self.score(prompts, answers))

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the stage's inputs, reward models, that it scores with; empty for a source that needs none."""
        return ()

    def with_models(self, models: Mapping[str, ScoreModel]) -> "RewardSource":
        """The source with the models to score with; a stage calls it before the first answer, where it has `inputs`.

        A source that is made of others hands the models on to them.

        Args:
            models: one for each of `inputs`.
        """
        return self

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
    return _checked(type(source).__name__, source.score(prompts, answers), prompts, answers)


def score_in_parts(source: RewardSource, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
    """The source's scores and their parts, checked as by `score`.

    Raises:
        ValueError: also where the parts are not those that the source names.
    """
    name = type(source).__name__
    if not source.parts:
        return Scores(score(source, prompts, answers))
    found: object = source.score_in_parts(prompts, answers)
    if not isinstance(found, Scores):
        raise ValueError(f"{name}: score_in_parts() must return Scores(total, parts), got a {type(found).__name__}")
    if list(found.parts) != list(source.parts):
        raise ValueError(
            f"{name}: score_in_parts() returned the parts {list(found.parts)}, but `parts` names {list(source.parts)}"
        )
    parts = {k: _checked(f"{name}, part {k}", v, prompts, answers) for k, v in found.parts.items()}
    return Scores(_checked(name, found.total, prompts, answers), parts)


def _checked(name: str, found: object, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
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
        tie: neither was preferred; `first` and `probability` then are what the rater would have said if made to choose.
        tie_probability: that neither is preferred.
        draw: the uniform number that, below `probability`, made the first preferred; None where there is none.
        seen: features of the first and of the second answer as this rater saw them, by name.
        weights: log-odds that each unit of a feature in `seen`, and "position" for what is shown first, is configured
            to give an answer; empty where that is not known.
        flip: configured probability of saying the opposite of what is meant.
    """

    first: bool
    probability: float
    rater: str
    pooled_probability: float | None = None
    tie: bool = False
    tie_probability: float = 0.0
    draw: float | None = None
    seen: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)
    flip: float = 0.0


class Preference(abc.ABC):
    """Turns pairs into choices by a stated choice model.

    Position bias, drift and fatigue live here: they depend on `index`, the number of the judgement, and on nothing
    else that came before, so that judgements can be made in any order and on any process.
    """

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """One choice for each pair; `index` numbers the judgements over the whole labelling stage."""

    def compare_each(self, shown: Sequence[Sequence[Pair]], index: Sequence[int]) -> list[list[Choice]]:
        """Several choices for each pair, by different raters where there are as many.

        Args:
            shown: the same pair for each of its judgements, in the order in which its rater sees the answers.
            index: numbers of the pairs; with n judgements of each, judgement k of pair i is number `i n + k`.
        """
        flat = [pair for judged in shown for pair in judged]
        numbers = [i * len(judged) + k for i, judged in zip(index, shown, strict=True) for k in range(len(judged))]
        choices = iter(self.compare(flat, numbers))
        return [[next(choices) for _ in judged] for judged in shown]


@dataclass(frozen=True)
class Candidates:
    """Two or more answers to one prompt, in the order in which a rater sees them."""

    prompt: Prompt
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """One judgement of several answers, with the truth that only a simulated rater can tell.

    Args:
        places: numbers of the answers, the best first.
        probability: the true probability that this rater would rank them so.
        rater: who judged.
    """

    places: tuple[int, ...]
    probability: float
    rater: str


class Ranker(abc.ABC):
    """Turns lists of answers into rankings by a stated choice model.

    A ranking depends on its list and its number alone, as a `Preference`'s choice does.
    """

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def rank(self, lists: Sequence[Candidates], index: Sequence[int]) -> list[Order]:
        """One ranking for each list; `index` numbers the judgements over the whole stage."""
