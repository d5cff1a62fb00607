"""Instructions on words and letters. A keyword is a regular expression, and upper and lower case are the same."""

import re
from dataclasses import dataclass
from typing import ClassVar

from alignlab.errors import DataError
from alignlab.instructions.base import Instruction, Relation, check_pattern, holds


@dataclass(frozen=True)
class Existence(Instruction):
    """Every keyword is in the response, be it within a word.

    Args:
        keywords: to be found.
    """

    ID: ClassVar[str] = "keywords:existence"
    keywords: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.keywords:
            check_pattern(self.ID, "keywords", word, word)

    def follows(self, response: str) -> bool:
        """Whether none is missing."""
        return all(re.search(word, response, re.IGNORECASE) for word in self.keywords)


@dataclass(frozen=True)
class Frequency(Instruction):
    """A keyword occurs so often, occurrences within words included.

    Args:
        keyword: to be counted; blanks around it are left out.
        frequency: threshold, occurrences.
        relation: of the count to it.
    """

    ID: ClassVar[str] = "keywords:frequency"
    keyword: str
    frequency: int
    relation: Relation

    def __post_init__(self) -> None:
        check_pattern(self.ID, "keyword", self.keyword, self.keyword.strip())

    def follows(self, response: str) -> bool:
        """Whether the number of occurrences is as asked for."""
        found = re.findall(self.keyword.strip(), response, re.IGNORECASE)
        return holds(len(found), self.relation, self.frequency)


@dataclass(frozen=True)
class ForbiddenWords(Instruction):
    """None of the words is in the response as a word of its own.

    Args:
        forbidden_words: to be avoided.
    """

    ID: ClassVar[str] = "keywords:forbidden_words"
    forbidden_words: tuple[str, ...]

    def __post_init__(self) -> None:
        for word in self.forbidden_words:
            check_pattern(self.ID, "forbidden_words", word, _whole(word))

    def follows(self, response: str) -> bool:
        """Whether all were avoided."""
        return not any(re.search(_whole(word), response, re.IGNORECASE) for word in self.forbidden_words)


def _whole(word: str) -> str:
    return rf"\b{word}\b"


@dataclass(frozen=True)
class LetterFrequency(Instruction):
    """A letter, or another character, occurs so often.

    Args:
        letter: to be counted; one character.
        let_frequency: threshold, occurrences.
        let_relation: of the count to it.
    """

    ID: ClassVar[str] = "keywords:letter_frequency"
    letter: str
    let_frequency: int
    let_relation: Relation

    def __post_init__(self) -> None:
        if len(self.letter) != 1:
            raise DataError(f"{self.ID}: letter must be one character, got {self.letter!r}")

    def follows(self, response: str) -> bool:
        """Whether the number of occurrences is as asked for."""
        letter = self.letter.lower()
        return holds(sum(c == letter for c in response.lower()), self.let_relation, self.let_frequency)
