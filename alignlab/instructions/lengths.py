"""Instructions on numbers of sentences, paragraphs and words."""

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from alignlab.errors import DataError
from alignlab.instructions.base import Instruction, Relation, holds
from alignlab.instructions.libraries import check_installed, sentences_of

_ENDS_A_WORD: Final = re.compile(r"""[.,?!'"]""")


@dataclass(frozen=True)
class NumberSentences(Instruction):
    """The response has so many sentences, by Punkt for English; a list without full stops is one.

    Args:
        num_sentences: threshold, sentences.
        relation: of their number to it.
    """

    ID: ClassVar[str] = "length_constraints:number_sentences"
    num_sentences: int
    relation: Relation

    def __post_init__(self) -> None:
        check_installed(self.ID, "nltk", "punkt")

    def follows(self, response: str) -> bool:
        """Whether there are as many as asked for."""
        return holds(len(sentences_of(response)), self.relation, self.num_sentences)


@dataclass(frozen=True)
class NumberParagraphs(Instruction):
    """The response has exactly so many paragraphs, separated by the divider `***`.

    A divider may be the first or the last thing in the response; two without text in between are a mistake.

    Args:
        num_paragraphs: paragraphs.
    """

    ID: ClassVar[str] = "length_constraints:number_paragraphs"
    num_paragraphs: int

    def follows(self, response: str) -> bool:
        """Whether there are as many, none of them blank."""
        first, *others = re.split(r"\s?\*\*\*\s?", response)
        if not all(part.strip() for part in others[:-1]):
            return False
        blank_ends = sum(not part.strip() for part in (first, *others[-1:]))
        return 1 + len(others) - blank_ends == self.num_paragraphs


@dataclass(frozen=True)
class NumberWords(Instruction):
    """The response has so many words: runs of letters, digits and underscores, so that "it's" is two.

    Args:
        num_words: threshold, words.
        relation: of their number to it.
    """

    ID: ClassVar[str] = "length_constraints:number_words"
    num_words: int
    relation: Relation

    def follows(self, response: str) -> bool:
        """Whether there are as many as asked for."""
        return holds(len(re.findall(r"\w+", response)), self.relation, self.num_words)


@dataclass(frozen=True)
class NthParagraphFirstWord(Instruction):
    r"""The response has exactly so many paragraphs, separated by `\n\n`, and one of them begins with a word.

    Blank paragraphs are left out of the number of paragraphs, but not of the numbering of `nth_paragraph`.

    Args:
        num_paragraphs: paragraphs.
        nth_paragraph: the one that is looked at, from 1 to `num_paragraphs`.
        first_word: of it; quotation marks before it and what follows a mark of punctuation are left out.
    """

    ID: ClassVar[str] = "length_constraints:nth_paragraph_first_word"
    num_paragraphs: int
    nth_paragraph: int
    first_word: str

    def __post_init__(self) -> None:
        if not 1 <= self.nth_paragraph <= self.num_paragraphs:
            raise DataError(
                f"{self.ID}: nth_paragraph must be from 1 to num_paragraphs={self.num_paragraphs}, "
                f"got {self.nth_paragraph}"
            )

    def follows(self, response: str) -> bool:
        """Whether the number of paragraphs and the first word are as asked for."""
        paragraphs = response.split("\n\n")
        number = sum(bool(part.strip()) for part in paragraphs)
        if number != self.num_paragraphs:
            return False
        words = paragraphs[self.nth_paragraph - 1].split()
        return bool(words) and _bare(words[0]) == self.first_word.lower()


def _bare(word: str) -> str:
    """A word in lower case, without quotation marks before it and from the first mark of punctuation on."""
    bare = word.lstrip("'").lstrip('"')
    return "".join(letter.lower() for letter in _ENDS_A_WORD.split(bare)[0])
