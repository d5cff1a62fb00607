"""Instructions on a response as a whole: its language, letter case, commas, beginning and end."""

from dataclasses import dataclass
from typing import ClassVar

from alignlab.errors import DataError
from alignlab.instructions.base import Instruction, Relation, holds
from alignlab.instructions.libraries import check_installed, language_of, languages, tokens_of


@dataclass(frozen=True)
class ResponseLanguage(Instruction):
    """The response is in a language; one whose language cannot be told counts as followed.

    Args:
        language: ISO 639-1 code ("de"); Chinese is "zh-cn" or "zh-tw".
    """

    ID: ClassVar[str] = "language:response_language"
    language: str

    def __post_init__(self) -> None:
        check_installed(self.ID, "langdetect")
        if self.language not in languages():
            known = ", ".join(sorted(languages()))
            raise DataError(f"{self.ID}: language must be one of {known}; got {self.language!r}")

    def follows(self, response: str) -> bool:
        """Whether no other language is detected."""
        return language_of(response) in (None, self.language)


# ---- letter case and punctuation -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CapitalWordFrequency(Instruction):
    """So many words are in capital letters alone, "I" and "A" included.

    Args:
        capital_frequency: threshold, words.
        capital_relation: of their number to it.
    """

    ID: ClassVar[str] = "change_case:capital_word_frequency"
    capital_frequency: int
    capital_relation: Relation

    def __post_init__(self) -> None:
        check_installed(self.ID, "nltk", "punkt")

    def follows(self, response: str) -> bool:
        """Whether there are as many as asked for."""
        capitals = sum(token.isupper() for token in tokens_of(response))
        return holds(capitals, self.capital_relation, self.capital_frequency)


@dataclass(frozen=True)
class EnglishCapital(Instruction):
    """The response is in English, and in capital letters alone."""

    ID: ClassVar[str] = "change_case:english_capital"

    def __post_init__(self) -> None:
        check_installed(self.ID, "langdetect")

    def follows(self, response: str) -> bool:
        """Whether no small letter is in it, and no other language is detected."""
        return response.isupper() and language_of(response) in (None, "en")


@dataclass(frozen=True)
class EnglishLowercase(Instruction):
    """The response is in English, and in small letters alone."""

    ID: ClassVar[str] = "change_case:english_lowercase"

    def __post_init__(self) -> None:
        check_installed(self.ID, "langdetect")

    def follows(self, response: str) -> bool:
        """Whether no capital letter is in it, and no other language is detected."""
        return response.islower() and language_of(response) in (None, "en")


@dataclass(frozen=True)
class NoComma(Instruction):
    """The response has no comma."""

    ID: ClassVar[str] = "punctuation:no_comma"

    def follows(self, response: str) -> bool:
        """Whether there is none."""
        return "," not in response


# ---- beginning and end -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TwoResponses(Instruction):
    """The response is two different answers, separated by six stars.

    The separator may be the first or the last thing in the response; two without text in between are a mistake.
    """

    ID: ClassVar[str] = "combination:two_responses"

    def follows(self, response: str) -> bool:
        """Whether there are two, and they differ."""
        parts = [part.strip() for part in response.split("******")]
        answers = [part for part in parts if part]
        return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


@dataclass(frozen=True)
class RepeatPrompt(Instruction):
    """The response begins with a request, repeated word for word; letter case is ignored.

    Args:
        prompt_to_repeat: the request.
    """

    ID: ClassVar[str] = "combination:repeat_prompt"
    prompt_to_repeat: str

    def follows(self, response: str) -> bool:
        """Whether nothing stands before it."""
        return response.strip().lower().startswith(self.prompt_to_repeat.strip().lower())


@dataclass(frozen=True)
class EndChecker(Instruction):
    """The response ends with a phrase; letter case and quotation marks around the response are ignored.

    Args:
        end_phrase: the phrase.
    """

    ID: ClassVar[str] = "startend:end_checker"
    end_phrase: str

    def follows(self, response: str) -> bool:
        """Whether nothing follows it."""
        return response.strip().strip('"').lower().endswith(self.end_phrase.strip().lower())


@dataclass(frozen=True)
class Quotation(Instruction):
    """The response as a whole stands in double quotation marks."""

    ID: ClassVar[str] = "startend:quotation"

    def follows(self, response: str) -> bool:
        """Whether it begins and ends with one."""
        text = response.strip()
        return len(text) > 1 and text[0] == text[-1] == '"'
