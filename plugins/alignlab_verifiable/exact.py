"""ExactAnswer: the answer is the reference answer, up to stated differences of spelling."""

import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from alignlab.data.records import Prompt
from alignlab.errors import DataError
from alignlab_verifiable.checked import Checked, after, check_extraction, inside, reference


@dataclass(frozen=True)
class ExactAnswer(Checked):
    """Right where the answer equals the prompt's reference answer, both normalised in the same way.

    Args:
        fact: the fact of the prompt that holds the reference answer.
        marker: of both texts, only what follows the last marker counts, where they have it ("####"); null: all of it.
        tag: only what is inside the answer's last `<tag>...</tag>` counts; an answer without it is wrong. Null: all.
        ignore_case: letters of either case are equal (`str.casefold`).
        ignore_blanks: runs of blanks are one blank, and those at the ends do not count.
        ignore_form: Unicode forms of a character are equal (NFKC: full-width digits, ligatures).
        ignore_period: one period at the end does not count.
        right: reward of a right answer.
        wrong: reward of any other.
    """

    VERSION: ClassVar[str] = "1"
    fact: str = "answer"
    marker: str | None = None
    tag: str | None = None
    ignore_case: bool = True
    ignore_blanks: bool = True
    ignore_form: bool = True
    ignore_period: bool = True
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        check_extraction(self, self.marker, self.tag)

    def passes(self, prompt: Prompt, answer: str) -> bool:
        """Whether the answer is the reference answer. An empty reference is an error: every empty answer would fit."""
        wanted = self._final(reference(self, prompt, self.fact))
        if not wanted:
            raise DataError(
                f"ExactAnswer: the fact {self.fact!r} of the prompt {prompt.text[:60]!r} is empty once normalised; an "
                f"empty answer would be right. Give the prompt an answer, or leave it out"
            )
        given = answer if self.tag is None else inside(answer, self.tag)
        return given is not None and self._final(given) == wanted

    def _final(self, text: str) -> str:
        found = None if self.marker is None else after(text, self.marker)
        return self._normalised(text if found is None else found)

    def _normalised(self, text: str) -> str:
        text = unicodedata.normalize("NFKC", text) if self.ignore_form else text
        text = text.casefold() if self.ignore_case else text
        text = " ".join(text.split()) if self.ignore_blanks else text
        if self.ignore_period and text.endswith("."):
            text = text[:-1].rstrip() if self.ignore_blanks else text[:-1]
        return text
