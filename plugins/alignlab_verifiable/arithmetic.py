"""Sums that are made on the spot: prompts with one right answer, of any difficulty, without a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import ClassVar, Final, Literal

from alignlab.data.records import Document, Example, Prompt
from alignlab.data.source import DataSource, Split

Operation = Literal["addition", "subtraction"]
SIGNS: Final[Mapping[Operation, str]] = {"addition": "+", "subtraction": "-"}
VALIDATION_DOCUMENTS: Final = 0.05
"""Documents for validation, over those for training."""


@dataclass(frozen=True)
class Problem:
    """Two operands and what to do with them; `first` is not the smaller one in a subtraction.

    Args:
        width: digits of an operand, zeros in front; an answer has one more. 0 writes numbers as they are.
    """

    operation: Operation
    first: int
    second: int
    width: int = 0

    @property
    def text(self) -> str:
        """The problem as it is asked."""
        return f"{self.first:0{self.width}} {SIGNS[self.operation]} {self.second:0{self.width}} ="

    @property
    def answer(self) -> str:
        """The right answer."""
        result = self.first + self.second if self.operation == "addition" else self.first - self.second
        return f"{result:0{self.width + 1}}"


@dataclass(frozen=True)
class Arithmetic(DataSource):
    """Additions and subtractions of two whole numbers, `12 + 34 =`, answered by `46`; the fact `answer` has it too.

    A problem is a pair of operands and an operation: `12 + 34` and `34 + 12` are one problem, of which one order is
    drawn. Problems are drawn without repetition, first those for validation, then those for training; so none is in
    both, and more of the latter leaves the former as they are. Of the training problems, the first ones are *taught*:
    documents and instructions show their answers. The prompts of online methods are all training problems.

    Everything is a pure function of the arguments.

    Args:
        digits: of the largest operand; operands are from 0 to 10^digits - 1, differences from 0 on.
        operations: in equal shares.
        training_problems: how many.
        validation_problems: how many.
        taught: share of the training problems whose answers documents and instructions show; > 0, at most 1.
        training_documents: how many, each of `lines` problems drawn with repetition.
        lines: problems with their answers in one document, a line each.
        pad: write all numbers in full width, `07 + 12 =` and `019`: digits line up, which small models learn sooner.
        seed: of all draws.
    """

    VERSION: ClassVar[str] = "1"
    digits: int = 2
    operations: tuple[Operation, ...] = ("addition", "subtraction")
    training_problems: int = 4000
    validation_problems: int = 400
    taught: float = 0.5
    training_documents: int = 8000
    lines: int = 3
    pad: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("digits", "training_problems", "validation_problems", "training_documents", "lines"):
            if getattr(self, name) < 1:
                raise ValueError(f"Arithmetic: {name} must be >= 1, got {getattr(self, name)}")
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ValueError(f"Arithmetic: operations must be named, each once, got {list(self.operations)}")
        if not 0 < self.taught <= 1:
            raise ValueError(f"Arithmetic: taught must be in (0, 1], got {self.taught}; it is a share of the problems")
        wanted = self.training_problems + self.validation_problems
        if wanted > self._available:
            raise ValueError(
                f"Arithmetic: {wanted} problems are wanted, and there are {self._available} with operands of up to "
                f"{self.digits} digits; ask for fewer, or for more digits"
            )

    def documents(self, split: Split) -> Sequence[Document]:
        """Taught problems with their answers; for validation, held-out ones."""
        count = self.training_documents
        count = count if split == "train" else max(1, round(count * VALIDATION_DOCUMENTS))
        problems = self._taught if split == "train" else self._problems["validation"]
        rng = self._rng(f"documents:{split}")
        return [Document("\n".join(_line(rng.choice(problems)) for _ in range(self.lines))) for _ in range(count)]

    def instructions(self, split: Split) -> Sequence[Example]:
        """Taught problems, each once; for validation, held-out ones."""
        problems = self._taught if split == "train" else self._problems["validation"]
        return [Example(_prompt(problem), problem.answer, problem.operation) for problem in problems]

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """All problems, taught or not."""
        return [_prompt(problem) for problem in self._problems[split]]

    # ---- the draws ------------------------------------------------------------------------------------------------
    def _rng(self, purpose: str) -> Random:
        return Random(f"arithmetic:{self.seed}:{purpose}")

    @property
    def _pairs(self) -> int:
        """Pairs of operands, their order left out."""
        operands: int = 10**self.digits
        return operands * (operands + 1) // 2

    @property
    def _available(self) -> int:
        return len(self.operations) * self._pairs

    @cached_property
    def _problems(self) -> Mapping[Split, tuple[Problem, ...]]:
        held_out = self._rng("validation").sample(range(self._available), self.validation_problems)
        more = self._rng("train").sample(range(self._available), self.training_problems + len(held_out))
        kept = set(held_out)
        training = [number for number in more if number not in kept]
        return {
            "train": tuple(self._problem(n) for n in training[: self.training_problems]),
            "validation": tuple(self._problem(n) for n in held_out),
        }

    @property
    def _taught(self) -> Sequence[Problem]:
        problems = self._problems["train"]
        return problems[: max(1, round(self.taught * len(problems)))]

    def _problem(self, number: int) -> Problem:
        """Problem `number` of all there are."""
        kind, pair = divmod(number, self._pairs)
        large = (math.isqrt(8 * pair + 1) - 1) // 2  # pairs (large, small) in order: row `large` begins at its triangle
        small = pair - large * (large + 1) // 2
        operation = self.operations[kind]
        swapped = operation == "addition" and self._rng(f"order:{number}").random() < 0.5
        first, second = (small, large) if swapped else (large, small)
        return Problem(operation, first, second, self.digits if self.pad else 0)


def _prompt(problem: Problem) -> Prompt:
    return Prompt(Prompt.user(problem.text).messages, (("answer", problem.answer),))


def _line(problem: Problem) -> str:
    return f"{problem.text} {problem.answer}"
