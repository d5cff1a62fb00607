"""Checks of a preference: a choice depends on its pair and its number, and is drawn with its stated probability."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from alignlab.data.records import Prompt
from alignlab.reward import Choice, Pair, Preference
from alignlab.testing import rules
from alignlab.testing.apply import Checks, DoesNotApply, one_case_each, print_checks
from alignlab.testing.process import in_new_process
from alignlab.testing.reward import ANSWERS, PROMPTS

if TYPE_CHECKING:
    import pytest

DRAWS = 400
"""Judgements of each pair by which frequency and probability are compared."""
DEVIATIONS = 5.0
"""Standard deviations that the two may be apart; the draws are fixed by the seed, so it holds always or never."""


@dataclass(frozen=True)
class PreferenceSubject:
    """A preference under test, with the pairs that it judges.

    Args:
        make: builds the preference.
        pairs: texts of very unequal length among them, and two answers that are the same.
    """

    make: Callable[[], Preference]
    pairs: Sequence[Pair]

    @property
    def name(self) -> str:
        """The preference's class."""
        return type(self.make()).__name__

    @property
    def index(self) -> list[int]:
        """Numbers of the judgements, with gaps: pairs of identical answers are skipped in practice."""
        return [3 * i + 1 for i in range(len(self.pairs))]

    @cached_property
    def choices(self) -> list[Choice]:
        """Of all pairs in one call of a new preference."""
        return self.make().compare(self.pairs, self.index)

    def check(self, found: Sequence[Choice], expected: Sequence[Choice], what: str) -> None:
        """Insist that two lists of choices are the same."""
        wrong = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
        assert not wrong, (
            f"{self.name}: {what} changes {len(wrong)} of {len(expected)} choices, first {expected[wrong[0]]} to "
            f"{found[wrong[0]]}; a choice must depend on its pair and its number alone"
        )


def version_is_a_literal(subject: PreferenceSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: PreferenceSubject) -> None:
    """Constructor arguments are attributes that cannot be changed afterwards."""
    rules.check_arguments(subject.make())


def one_choice_for_each_pair(subject: PreferenceSubject) -> None:
    """As many choices as pairs, each with a probability from 0 to 1 and the name of a rater."""
    count = len(subject.choices)
    assert count == len(subject.pairs), f"{subject.name}: {len(subject.pairs)} pairs got {count} choices"
    for pair, choice in zip(subject.pairs, subject.choices, strict=True):
        assert isinstance(choice.first, bool), f"{subject.name}: `first` must be true or false, got {choice.first!r}"
        assert 0 <= choice.probability <= 1, (
            f"{subject.name}: the probability of {pair.first!r} over {pair.second!r} is {choice.probability}"
        )
        assert choice.rater, f"{subject.name}: a choice must name its rater"


def an_empty_list_has_no_choices(subject: PreferenceSubject) -> None:
    """Empty lists give an empty list, not an error."""
    try:
        found = subject.make().compare([], [])
    except Exception as error:
        raise AssertionError(f"{subject.name}: cannot judge an empty list ({error!r}); give an empty list") from error
    assert list(found) == [], f"{subject.name}: no pairs got {len(found)} choices"


def batch_size_changes_nothing(subject: PreferenceSubject) -> None:
    """One by one, and in twos, the choices are those of one call."""
    for size in (1, 2):
        preference = subject.make()
        cuts = [slice(i, i + size) for i in range(0, len(subject.pairs), size)]
        found = [c for cut in cuts for c in preference.compare(subject.pairs[cut], subject.index[cut])]
        subject.check(found, subject.choices, f"judging {size} at a time")


def order_changes_nothing(subject: PreferenceSubject) -> None:
    """Backwards, each pair keeps its choice."""
    backwards = range(len(subject.pairs))[::-1]
    found = subject.make().compare([subject.pairs[i] for i in backwards], [subject.index[i] for i in backwards])
    subject.check(found, [subject.choices[i] for i in backwards], "another order")


def earlier_calls_change_nothing(subject: PreferenceSubject) -> None:
    """No memory and no global randomness: the same pairs again, from another random state, get the same choices."""
    preference = subject.make()
    with rules.no_randomness(subject.name, seed=1):
        subject.check(preference.compare(subject.pairs, subject.index), subject.choices, "a second object")
    with rules.no_randomness(subject.name, seed=2):
        subject.check(preference.compare(subject.pairs, subject.index), subject.choices, "an earlier call")


def process_changes_nothing(subject: PreferenceSubject) -> None:
    """A new process with other hash seeds gives the same choices; the preference can be pickled to get there."""
    found = in_new_process(subject.make(), "compare", list(subject.pairs), subject.index)
    subject.check(found, subject.choices, "another process")


def choices_agree_with_their_probability(subject: PreferenceSubject) -> None:
    """Over many judgements of a pair, the first is preferred as often as the stated probabilities add up to."""
    for number, pair in enumerate(subject.pairs):
        index = range(number * DRAWS, (number + 1) * DRAWS)
        choices = subject.make().compare([pair] * DRAWS, index)
        expected = sum(c.probability for c in choices)
        spread = math.sqrt(sum(c.probability * (1 - c.probability) for c in choices))
        found = sum(c.first for c in choices)
        assert abs(found - expected) <= DEVIATIONS * spread + 1e-6 * DRAWS, (
            f"{subject.name}: preferred {pair.first!r} to {pair.second!r} in {found} of {DRAWS} judgements, and its "
            f"probabilities add up to {expected:.1f} +- {spread:.1f}; `probability` is that of the FIRST answer"
        )


def swapped_answers_swap_the_choice(subject: PreferenceSubject) -> None:
    """Shown the other way round, the first answer has the probability that the second had; of two equal ones, a half.

    It holds where nothing favours a position: no argument with `position` in its name that is not 0.
    """
    biased = _position_arguments(subject.make())
    if biased:
        raise DoesNotApply(f"favours a position: {', '.join(f'{k}={v}' for k, v in biased.items())}")
    swapped = [Pair(p.prompt, p.second, p.first) for p in subject.pairs]
    found = subject.make().compare(swapped, subject.index)
    for pair, one, other in zip(subject.pairs, subject.choices, found, strict=True):
        off = one.probability + other.probability - 1
        assert abs(off) <= 1e-6, (
            f"{subject.name}: {pair.first!r} against {pair.second!r} is preferred with probability {one.probability}, "
            f"and {pair.second!r} against {pair.first!r} with {other.probability}: they must add up to 1 where nothing "
            f"favours a position (name the argument that does position_...)"
        )


def _position_arguments(preference: Preference) -> dict[str, object]:
    names = [name for name in inspect.signature(type(preference)).parameters if "position" in name]
    return {name: value for name in names if (value := getattr(preference, name, 0))}


CHECKS: Checks[PreferenceSubject] = (
    version_is_a_literal,
    arguments_are_attributes,
    one_choice_for_each_pair,
    an_empty_list_has_no_choices,
    batch_size_changes_nothing,
    order_changes_nothing,
    earlier_calls_change_nothing,
    process_changes_nothing,
    choices_agree_with_their_probability,
    swapped_answers_swap_the_choice,
)


def conforms_preference(
    make: Callable[[], Preference], *, prompts: Sequence[Prompt] = (), skip: Mapping[str, str] | None = None
) -> "pytest.MarkDecorator":
    """Put a preference through every check: `@conforms_preference(lambda: Panel({"plain": plain}))`.

    Args:
        make: builds the preference; called often. Its class can be imported by name, as a new process must.
        prompts: asked in place of the kit's own, for a preference that accepts only some.
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, PreferenceSubject(make, kit_pairs(prompts)), skip or {})


def check_preference(
    preference: Preference, *, prompts: Sequence[Prompt] = (), skip: Mapping[str, str] | None = None
) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        preference: copied for each check.
        prompts: see `conforms_preference`, as `skip`.
    """
    subject = PreferenceSubject(lambda: copy.deepcopy(preference), kit_pairs(prompts))
    return print_checks(subject.name, CHECKS, subject, skip or {})


def kit_pairs(prompts: Sequence[Prompt] = ()) -> list[Pair]:
    """Pairs of the kit's answers, an identical one among them, to its own prompts or to the given ones."""
    known = prompts or PROMPTS
    seconds = (*ANSWERS[1:], ANSWERS[-1])
    return [Pair(known[i % len(known)], a, b) for i, (a, b) in enumerate(zip(ANSWERS, seconds, strict=True))]
