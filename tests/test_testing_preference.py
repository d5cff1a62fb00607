"""The kit's checks of preferences: an honest one passes, and every check catches a mutant."""

import preference_mutants as mutants
import pytest
from alignlab_raters import Panel, Rater

from alignlab.data.records import Prompt
from alignlab.reward import Preference
from alignlab.testing import Check, check_preference, conforms_preference
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.preference import CHECKS, PreferenceSubject, kit_pairs, swapped_answers_swap_the_choice


@conforms_preference(mutants.Honest)
def test_honest(check: Check) -> None:
    check()


@conforms_preference(
    lambda: Panel(
        {"brief": Rater("brief", {"words": -1.0}), "plain": Rater("plain", {"list": 1.0}, noise=0.5)}, flip=0.1
    )
)
def test_a_panel_of_raters(check: Check) -> None:
    check()


MUTANTS: list[tuple[str, type[Preference]]] = [
    ("version_is_a_literal", mutants.NoVersion),
    ("arguments_are_attributes", mutants.Thawed),
    ("one_choice_for_each_pair", mutants.Percent),
    ("one_choice_for_each_pair", mutants.Nameless),
    ("an_empty_list_has_no_choices", mutants.NeedsOne),
    ("batch_size_changes_nothing", mutants.Relative),
    ("order_changes_nothing", mutants.ByPlace),
    ("earlier_calls_change_nothing", mutants.GlobalDraws),
    ("earlier_calls_change_nothing", mutants.Tiring),
    ("process_changes_nothing", mutants.Hashing),
    ("process_changes_nothing", mutants.Unsendable),
    ("choices_agree_with_their_probability", mutants.OfTheChosen),
    ("swapped_answers_swap_the_choice", mutants.FirstIsBetter),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_mutant_is_caught(name: str, mutant: type[Preference]) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    with pytest.raises(AssertionError, match=f"^{mutant.__name__}: "):
        check(PreferenceSubject(mutant, kit_pairs()))


def test_every_check_has_a_mutant() -> None:
    assert {c.__name__ for c in CHECKS} == {name for name, _ in MUTANTS}


def test_a_stated_position_bias_is_not_judged() -> None:
    with pytest.raises(DoesNotApply, match="position_bias=1"):
        swapped_answers_swap_the_choice(PreferenceSubject(lambda: mutants.Honest(position_bias=1.0), kit_pairs()))


def test_given_prompts_are_asked_in_place_of_the_kits_own(capsys: pytest.CaptureFixture[str]) -> None:
    only = Prompt.user("the only question")
    assert {p.prompt for p in kit_pairs([only])} == {only}
    assert check_preference(mutants.Honest(), prompts=[only], skip={"process_changes_nothing": "takes seconds"})
    assert "Honest: no check failed" in capsys.readouterr().out
