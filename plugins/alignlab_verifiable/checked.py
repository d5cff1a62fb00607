"""Parts that checked rewards share: a verdict on each answer, and where in a text the answer is.

Axes: answers.
"""

import abc
import re
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import RewardSource
from alignlab.data.records import Prompt
from alignlab.errors import DataError


class Checked(RewardSource):
    """Scores `right` for an answer that passes a check and `wrong` for every other one. Nothing that a model writes
    raises an error.
    """

    VERSION: ClassVar[str] = "1"
    right: float
    wrong: float

    @abc.abstractmethod
    def passes(self, prompt: Prompt, answer: str) -> bool:
        """Whether one answer is right."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """`right` or `wrong` for each answer."""
        passed = [self.passes(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return torch.tensor([self.right if p else self.wrong for p in passed], dtype=torch.float32)


def reference(owner: RewardSource, prompt: Prompt, fact: str) -> str:
    """The fact of a prompt that its answers are compared with.

    Raises:
        DataError: there is none; the message also names the reward.
    """
    try:
        return prompt.fact(fact)
    except DataError as error:
        raise DataError(f"{type(owner).__name__}: {error}") from None


def check_extraction(owner: RewardSource, marker: str | None, tag: str | None) -> None:
    """Refuse a marker or tag that no text can hold."""
    name = type(owner).__name__
    if marker is not None and not marker.strip():
        raise ValueError(f"{name}: marker must not be blank; null takes the whole answer")
    if tag is not None:
        check_tag(name, tag)


def check_tag(owner: str, tag: str) -> None:
    """Refuse what is not the name of a tag."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", tag):
        raise ValueError(f"{owner}: {tag!r} is not the name of a tag; write think for <think>...</think>")


def inside(text: str, tag: str) -> str | None:
    """Text between the last `<tag>` and the `</tag>` that follows it; None where it is not there, or not closed."""
    _, opened, rest = text.rpartition(f"<{tag}>")
    content, closed, _ = rest.partition(f"</{tag}>")
    return content if opened and closed else None


def after(text: str, marker: str) -> str | None:
    """Text after the last marker; None where it is not there."""
    _, found, rest = text.rpartition(marker)
    return rest if found else None
