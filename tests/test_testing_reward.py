"""The kit's checks of reward sources: an honest one passes, and every check catches a mutant."""

from collections.abc import Callable, Sequence

import pytest
import reward_mutants as mutants
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.reward import RewardSource, score_in_parts
from alignlab.testing import RewardSubject, check_reward_source, conforms_reward_source
from alignlab.testing.reward import ANSWERS, CHECKS, PROMPTS


@conforms_reward_source(lambda: mutants.Honest(0.2), prompts=[Prompt.user("more ?")], answers=["yes yes"])
def test_honest(check: Callable[[], None]) -> None:
    check()


@conforms_reward_source(mutants.WithParts)
def test_honest_parts(check: Callable[[], None]) -> None:
    check()


def test_parts_must_be_the_ones_that_are_named() -> None:
    source = mutants.WithParts()
    assert list(score_in_parts(source, [], []).parts) == ["words", "letters"]

    class Unnamed(mutants.WithParts):
        parts = ("words",)

    with pytest.raises(ValueError, match=r"Unnamed: score_in_parts\(\) returned the parts .* names \['words'\]"):
        score_in_parts(Unnamed(), [], [])


MUTANTS: list[tuple[str, type[RewardSource]]] = [
    ("version_is_a_literal", mutants.NoVersion),
    ("arguments_are_attributes", mutants.Thawed),
    ("one_finite_score_for_each_answer", mutants.MeanLength),
    ("one_finite_score_for_each_answer", mutants.Listed),
    ("an_empty_list_has_no_scores", mutants.NeedsOne),
    ("batch_size_changes_nothing", mutants.Whitened),
    ("order_changes_nothing", mutants.NoiseByPlace),
    ("earlier_calls_change_nothing", mutants.GlobalNoise),
    ("earlier_calls_change_nothing", mutants.Tiring),
    ("process_changes_nothing", mutants.Hashing),
    ("process_changes_nothing", mutants.Unsendable),
    ("parts_belong_to_the_score", mutants.AnotherTotal),
    ("parts_belong_to_the_score", mutants.PartsOfTheBatch),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_mutant_is_caught(name: str, mutant: type[RewardSource]) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(len(ANSWERS))]
    with pytest.raises(AssertionError, match=mutant.__name__):
        check(RewardSubject(mutant, prompts, ANSWERS))


def test_every_check_has_a_mutant() -> None:
    assert {c.__name__ for c in CHECKS} == {name for name, _ in MUTANTS}


def test_given_prompts_are_asked_in_place_of_the_kits_own() -> None:
    only = Prompt.user("the only question")

    class Knows(mutants.Honest):
        def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
            assert set(prompts) <= {only}
            return super().score(prompts, answers)

    mark = conforms_reward_source(Knows, prompts=[only], answers=["yes"]).mark
    checks = {case.id: case.values[0] for case in mark.args[1]}
    checks["one_finite_score_for_each_answer"]()
    with pytest.raises(ValueError, match="2 answers to 1 prompts"):
        conforms_reward_source(Knows, prompts=[only], answers=["yes", "no"])


def test_the_table_of_a_mutant_names_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    skip = {"process_changes_nothing": "takes seconds"}
    assert check_reward_source(mutants.Honest(), skip=skip)
    assert not check_reward_source(mutants.Whitened(), skip={**skip, "order_changes_nothing": "because"})
    printed = capsys.readouterr().out
    assert "Honest: no check failed" in printed and "Whitened: 2 of 9 checks failed" in printed
    assert "order_changes_nothing             skipped  because" in printed
    assert "batch_size_changes_nothing        FAILED   Whitened: scoring 1 at a time moves a score by" in printed
