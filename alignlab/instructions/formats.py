"""Instructions on parts that a response must have: placeholders, a postscript, bullets, sections, JSON, a title."""

import json
import re
from dataclasses import dataclass
from typing import ClassVar, Final

from alignlab.instructions.base import Instruction, check_pattern

ANSWERS: Final = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""Answers that a constrained response may give."""
FENCES: Final = ("```json", "```Json", "```JSON", "```")
"""Marks that may stand before JSON."""
POSTSCRIPTS: Final = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
"""Expressions of the usual markers, which allow for a blank between the letters."""
INDENT: Final = r"^[^\S\n]*"
"""Blanks at the beginning of a line; blank lines before it are left out, which would take time by their square."""


@dataclass(frozen=True)
class NumberPlaceholders(Instruction):
    """The response has at least so many placeholders in square brackets, such as [address].

    Args:
        num_placeholders: the fewest.
    """

    ID: ClassVar[str] = "detectable_content:number_placeholders"
    num_placeholders: int

    def follows(self, response: str) -> bool:
        """Whether there are enough; a placeholder ends within its line."""
        return len(re.findall(r"\[.*?\]", response)) >= self.num_placeholders


@dataclass(frozen=True)
class Postscript(Instruction):
    """The response has a postscript: its marker occurs, wherever that is.

    Args:
        postscript_marker: how it begins; other than "P.S." and "P.P.S", a regular expression in lower case.
    """

    ID: ClassVar[str] = "detectable_content:postscript"
    postscript_marker: str

    def __post_init__(self) -> None:
        check_pattern(self.ID, "postscript_marker", self.postscript_marker, self.pattern)

    @property
    def pattern(self) -> str:
        """The marker as it is looked for in the response in lower case."""
        marker = self.postscript_marker.strip()
        return POSTSCRIPTS.get(marker, rf"\s*{marker.lower()}.*$")

    def follows(self, response: str) -> bool:
        """Whether the marker is there."""
        return re.search(self.pattern, response.lower(), re.MULTILINE) is not None


@dataclass(frozen=True)
class NumberBulletLists(Instruction):
    """The response has exactly so many bullet points: lines that begin with `*` (but not `**`) or with `-`.

    Args:
        num_bullets: bullet points.
    """

    ID: ClassVar[str] = "detectable_format:number_bullet_lists"
    num_bullets: int

    def follows(self, response: str) -> bool:
        """Whether there are as many; a line of dashes is a bullet too."""
        stars = re.findall(rf"{INDENT}\*[^\*].*$", response, re.MULTILINE)
        dashes = re.findall(rf"{INDENT}-.*$", response, re.MULTILINE)
        return len(stars) + len(dashes) == self.num_bullets


@dataclass(frozen=True)
class ConstrainedResponse(Instruction):
    """The response says that its answer is yes, no or maybe, in these words; more may stand around them."""

    ID: ClassVar[str] = "detectable_format:constrained_response"

    def follows(self, response: str) -> bool:
        """Whether one of the answers is in it."""
        return any(answer in response for answer in ANSWERS)


@dataclass(frozen=True)
class NumberHighlightedSections(Instruction):
    """The response has at least so many highlighted sections, such as *this*.

    A section in double stars is counted once, as the pairs of stars at its ends enclose nothing.

    Args:
        num_highlights: the fewest.
    """

    ID: ClassVar[str] = "detectable_format:number_highlighted_sections"
    num_highlights: int

    def follows(self, response: str) -> bool:
        """Whether there are enough that are not blank."""
        single = [found.strip("*") for found in re.findall(r"\*[^\n\*]*\*", response)]
        double = [found[2:-2] for found in re.findall(r"\*\*[^\n\*]*\*\*", response)]
        return sum(bool(text.strip()) for text in (*single, *double)) >= self.num_highlights


@dataclass(frozen=True)
class MultipleSections(Instruction):
    """The response has at least so many sections, marked as `Section 1`.

    Args:
        section_spliter: the word before the number, a regular expression (spelt as the public data spell it).
        num_sections: the fewest.
    """

    ID: ClassVar[str] = "detectable_format:multiple_sections"
    section_spliter: str
    num_sections: int

    def __post_init__(self) -> None:
        check_pattern(self.ID, "section_spliter", self.section_spliter, self.pattern)

    @property
    def pattern(self) -> str:
        """A mark with its number."""
        return rf"\s?{self.section_spliter.strip()}\s?\d+\s?"

    def follows(self, response: str) -> bool:
        """Whether there are enough marks; groups in the expression count as well, as they do in the public code."""
        return len(re.split(self.pattern, response)) - 1 >= self.num_sections


@dataclass(frozen=True)
class JsonFormat(Instruction):
    """The response as a whole is JSON, in a fence of ticks or without one."""

    ID: ClassVar[str] = "detectable_format:json_format"

    def follows(self, response: str) -> bool:
        """Whether it can be parsed."""
        text = response.strip()
        for fence in FENCES:
            text = text.removeprefix(fence)
        try:
            json.loads(text.removesuffix("```").strip())
        except (ValueError, RecursionError):
            return False
        return True


@dataclass(frozen=True)
class Title(Instruction):
    """The response has a title in double angular brackets, within a line, such as <<poem of joy>>."""

    ID: ClassVar[str] = "detectable_format:title"

    def follows(self, response: str) -> bool:
        """Whether there is one that is not blank."""
        return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", response))
