"""Verdicts on a response: strict, on the response as it is; loose, on eight readings of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.instructions.base import Instruction


@dataclass(frozen=True)
class Verdicts:
    """Whether a response follows each of its instructions, in their order.

    Args:
        strict: as it is.
        loose: in any of its readings; true wherever `strict` is.
    """

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def verdicts(response: str, instructions: Sequence[Instruction]) -> Verdicts:
    """Judge a response; a blank one follows nothing.

    Source: Zhou et al. 2023, arXiv:2311.07911, section 2.2.
    """
    texts = readings(response)
    strict = tuple(_followed(response, one) for one in instructions)
    loose = tuple(any(_followed(text, one) for text in texts) for one in instructions)
    return Verdicts(strict, loose)


def readings(response: str) -> list[str]:
    """A response, without its first line (an introduction), its last (a farewell) or both; each without stars as well.

    The response itself is first.
    """
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [reading for text in (response, *cut) for reading in (text, text.replace("*", ""))]


def _followed(text: str, instruction: Instruction) -> bool:
    return bool(text.strip()) and instruction.follows(text)
