"""Regex: the answer fits a pattern. The engine is RE2, in which no pattern can take more than linear time.

Python's own engine backtracks: `(a+)+$` takes hours on forty letters that a model may well write. RE2 (of pyarrow,
which is here anyway) cannot, and needs neither a time limit, which would make a reward depend on the machine, nor a
limit on the length of an answer. Its price: no backreferences, no look-around.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab_verifiable.checked import Checked


@dataclass(frozen=True)
class Regex(Checked):
    r"""Right where the answer fits a pattern.

    Args:
        pattern: of RE2 (https://github.com/google/re2/wiki/Syntax): no backreferences, no look-around, repetitions up
            to 1000. `(?i)` at its start ignores case, `(?s)` lets `.` match line breaks.
        whole: the whole answer must fit; else it is enough that a part does.
        right: reward of an answer that fits.
        wrong: reward of any other.
    """

    VERSION: ClassVar[str] = "1"
    pattern: str = r"\S"
    whole: bool = False
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        check_pattern("Regex", self.pattern)

    def passes(self, prompt: Prompt, answer: str) -> bool:
        """Whether one answer fits."""
        return matches(self.pattern, [answer], self.whole)[0]

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """All in one call: the pattern is compiled once."""
        fits = matches(self.pattern, answers, self.whole)
        return torch.tensor([self.right if fit else self.wrong for fit in fits], dtype=torch.float32)


def matches(pattern: str, texts: Sequence[str], whole: bool = False) -> list[bool]:
    """Whether the pattern matches each text, or a part of it."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.compute  # type: ignore[import-untyped]

    # Half of a surrogate pair has no UTF-8: it becomes a question mark, as a decoder would have made of it.
    given = pyarrow.array([text.encode("utf-8", "replace") for text in texts], pyarrow.binary()).cast(pyarrow.string())
    used = rf"\A(?:{pattern})\z" if whole else pattern
    found: list[bool] = pyarrow.compute.match_substring_regex(given, used).to_pylist()
    return found


def check_pattern(owner: str, pattern: str) -> None:
    """Refuse a pattern that RE2 cannot read.

    Raises:
        ValueError: with RE2's reason.
    """
    try:
        matches(pattern, [""])
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        reason = str(error)
        raise ValueError(
            f"{owner}: pattern {pattern!r} cannot be used: {reason}. It is read by RE2, which has neither "
            f"backreferences nor look-around"
        ) from None
