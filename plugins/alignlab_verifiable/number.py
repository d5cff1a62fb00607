"""Number: the answer's number is the reference's, as in GSM8K."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Final

from alignlab.data.records import Prompt
from alignlab.errors import DataError
from alignlab_verifiable.checked import Checked, after, check_extraction, inside, reference

_LONGEST: Final = 400
"""Characters of a number; a longer one has no value here, and neither has one whose exponent is beyond the next."""
_LARGEST_POWER: Final = 999
_SIGNS: Final = str.maketrans("\u2212\uff0d\ufe63\uff0b\uff0c\uff0e\uff0f\u2044\u00a0\u202f", "---+,.//  ")
"""Minus signs, full-width signs, the fraction slash, blanks that do not break: as a keyboard has them."""

_POWER: Final = r"(?:[eE][+-]?\d+(?!\w))?"
_PLAIN: Final = rf"(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?{_POWER}|\.\d+{_POWER}"
# A number does not begin inside a word or another number ("H2O", "1.2.3"), and a sign counts only where nothing stands
# right before it ("10-3" is 10 and 3). Each search is linear in the text: a run of digits is read from its start only.
_NUMBER: Final = re.compile(
    rf"(?P<sign>(?<![\w)\]])[+-])?[$€£¥]?(?P<inner>(?<=[$€£¥])[+-])?(?<!\w)(?<!\d\.)"
    rf"(?:(?P<whole>\d+)[ ](?=\d+/\d))?(?P<top>{_PLAIN})(?:/(?P<bottom>{_PLAIN}))?"
)
_PARTS: Final = (("whole", "0"), ("top", "0"), ("bottom", "1"))
"""Of a number, each with what it is where it is not written."""


@dataclass(frozen=True)
class Number(Checked):
    """Right where the answer's number is that of the prompt's reference answer.

    The number of a text is the first one after its last marker, or, where it has no marker, its last one. Read are
    signs, thousands (`1,234`), decimals, powers (`1.5e3`), fractions (`3/4`, `1 3/4`, `½`), currency signs and the
    digits of every script; units and `%` are passed over, so `50 %` is 50. A comma that does not divide groups of three
    digits separates two numbers.

    Args:
        fact: the fact of the prompt that holds the reference answer: a number, or a text that ends in one.
        marker: stands before the number ("####" in GSM8K); null has none.
        needs_marker: an answer without the marker is wrong; else its last number counts.
        tag: only what is inside the answer's last `<tag>...</tag>` counts; an answer without it is wrong. Null: all.
        tolerance: largest difference that is right, in units of the number; numbers are compared exactly.
        relative: the same, over the size of the reference; the larger of the two allowances holds.
        right: reward of a right answer.
        wrong: reward of any other, also of one without a number.

    Source: the marker is that of GSM8K, Cobbe et al. 2021, arXiv:2110.14168.
    """

    VERSION: ClassVar[str] = "1"
    fact: str = "answer"
    marker: str | None = "####"
    needs_marker: bool = False
    tag: str | None = None
    tolerance: float = 0.0
    relative: float = 0.0
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        check_extraction(self, self.marker, self.tag)
        if self.needs_marker and self.marker is None:
            raise ValueError("Number: needs_marker is true, but marker is null; name the marker")
        for name in ("tolerance", "relative"):
            if getattr(self, name) < 0:
                raise ValueError(f"Number: {name} must be >= 0, got {getattr(self, name)}; it is a distance")

    def passes(self, prompt: Prompt, answer: str) -> bool:
        """Whether the answer holds the reference's number."""
        text = reference(self, prompt, self.fact)
        wanted = self._number(text, needs_marker=False)
        if wanted is None:
            raise DataError(
                f"Number: the fact {self.fact!r} of the prompt {prompt.text[:60]!r} holds no number, it is "
                f"{text[-60:]!r}; name the fact that does, or use reward=exact_answer"
            )
        given = answer if self.tag is None else inside(answer, self.tag)
        found = None if given is None else self._number(given, self.needs_marker)
        return found is not None and abs(found - wanted) <= self._allowance(wanted)

    def _number(self, text: str, needs_marker: bool) -> Fraction | None:
        marked = None if self.marker is None else after(text, self.marker)
        if marked is not None:
            return next(numbers(marked), None)
        return None if needs_marker else _last(numbers(text))

    def _allowance(self, wanted: Fraction) -> Fraction:
        # By their decimal text: a tolerance of 0.1 is a tenth, and 0.3 against 0.2 is within it.
        return max(Fraction(str(self.tolerance)), Fraction(str(self.relative)) * abs(wanted))


def numbers(text: str) -> Iterator[Fraction | None]:
    """The numbers in a text, in their order; None for one that has no value (`1/0`) or is too long."""
    return (_value(found) for found in _NUMBER.finditer(_typed(text)))


def _last(found: Iterator[Fraction | None]) -> Fraction | None:
    last = None
    for last in found:  # noqa: B007  # the last one is what is wanted
        pass
    return last


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > _LONGEST:
        return None
    whole, top, bottom = (_fraction(found[name] or default) for name, default in _PARTS)
    if whole is None or top is None or not bottom:
        return None
    size = whole + top / bottom
    return -size if "-" in (found["sign"], found["inner"]) else size


def _fraction(text: str) -> Fraction | None:
    digits, _, power = text.replace(",", "").lower().partition("e")
    exponent = int(power or 0)
    return Fraction(digits) * Fraction(10) ** exponent if abs(exponent) <= _LARGEST_POWER else None


def _typed(text: str) -> str:
    """The text in the characters of a keyboard: signs, the digits of every script, fractions that are one character."""
    if text.isascii():
        return text
    return "".join(map(_typed_character, text.translate(_SIGNS)))


def _typed_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    kind, *parts = unicodedata.decomposition(character).split() or [""]
    if kind == "<fraction>" and len(parts) > 2:  # ½: 1, slash, 2; it may follow a whole number
        return " " + "".join(chr(int(part, 16)) for part in parts).replace("\u2044", "/")
    return character
