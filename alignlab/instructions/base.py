"""Instruction: the contract of a verifier, and what several of them share."""

import abc
import re
import warnings
from typing import ClassVar, Literal

from alignlab.errors import DataError

Relation = Literal["at least", "less than"]
"""How a count is compared with its threshold."""


class Instruction(abc.ABC):
    """An instruction whose fulfilment can be checked in the response alone.

    A kind is a frozen dataclass whose fields are the arguments of the public kind, by the same names.
    """

    ID: ClassVar[str]
    """Public id of the kind: `keywords:existence`."""

    @abc.abstractmethod
    def follows(self, response: str) -> bool:
        """Whether a response that is not blank follows the instruction; `verdicts` handles blank ones."""


def holds(count: int, relation: Relation, threshold: int) -> bool:
    """Whether a count is as the relation says."""
    return count < threshold if relation == "less than" else count >= threshold


def check_pattern(kind: str, argument: str, value: str, pattern: str) -> None:
    """Refuse an argument that makes no regular expression.

    Args:
        kind: id of the instruction.
        argument: its name.
        value: of the argument, for the message.
        pattern: the whole expression that it is part of.

    Raises:
        DataError: names all three.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later version of Python may read differently
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"{kind}: {argument} must be a regular expression, got {value!r} ({error}); write a backslash before a "
            f"character that stands for itself"
        ) from error
