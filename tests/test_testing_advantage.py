"""The kit's checks of advantages: honest ones pass, and every check catches a mutant."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from advantage_mutants import (
    Amplifies,
    DividesByZero,
    Everywhere,
    Forgets,
    GroupRelative,
    Guided,
    LeaveOneOut,
    Neighbour,
    Noisy,
    NoVersion,
    Overwrites,
    PerToken,
    PricedPrompt,
    Running,
    Sign,
    Thawed,
    Undeclared,
    Whitened,
)
from alignlab_ppo import GAE

from alignlab.advantage import Advantage, last_response_token
from alignlab.testing import Check, check_advantage, conforms_advantage
from alignlab.testing.advantage import CHECKS, AdvantageSubject
from alignlab.testing.apply import DoesNotApply


@conforms_advantage(GroupRelative)
def test_group_relative(check: Check) -> None:
    check()


@conforms_advantage(LeaveOneOut)
def test_leave_one_out(check: Check) -> None:
    check()


@conforms_advantage(Whitened)
def test_whitened(check: Check) -> None:
    check()


@conforms_advantage(lambda: GAE(missing_eos_penalty=0.0))
def test_gae_without_a_penalty(check: Check) -> None:
    check()


@conforms_advantage(
    Guided, extras={"difficulty": lambda batch, generator: 0.5 + torch.rand(batch.num_sequences, generator=generator)}
)
def test_an_extra_of_ones_own(check: Check) -> None:
    check()


# ---- mutants ---------------------------------------------------------------------------------------------------------
MUTANTS: list[tuple[str, type[Advantage]]] = [
    ("version_is_a_literal", NoVersion),
    ("arguments_are_attributes", Thawed),
    ("declares_what_it_reads", Undeclared),
    ("keeps_the_buffer", Forgets),
    ("keeps_the_buffer", Overwrites),
    ("same_input_gives_the_same_bits", Noisy),
    ("same_input_gives_the_same_bits", Running),
    ("is_zero_outside_the_response_mask", Everywhere),
    ("masked_values_change_nothing", PricedPrompt),
    ("prompt_length_changes_nothing", PerToken),
    ("order_changes_nothing", Neighbour),
    ("advantages_are_finite", DividesByZero),
    ("equal_rewards_give_no_advantage", Amplifies),
    ("better_answers_get_more", Sign),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_mutant_is_caught(name: str, mutant: type[Advantage]) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    check(AdvantageSubject(GroupRelative))
    with pytest.raises(AssertionError, match=f"^{mutant.__name__}: "):
        check(AdvantageSubject(mutant))


def test_every_check_has_a_mutant() -> None:
    assert {c.__name__ for c in CHECKS} == {name for name, _ in MUTANTS}


def test_what_does_not_compare_samples_is_not_judged_by_groups() -> None:
    check = next(c for c in CHECKS if c.__name__ == "equal_rewards_give_no_advantage")
    with pytest.raises(DoesNotApply, match="lacks `group`"):
        check(AdvantageSubject(Whitened))


# ---- the kit's buffers -----------------------------------------------------------------------------------------------
def test_a_buffer_holds_what_is_declared_and_nothing_else() -> None:
    batch = AdvantageSubject(GAE).buffer()
    assert batch.per_token.keys() == {"old_logp", "reference_logp", "old_value"}
    assert batch.per_sequence.keys() == {"reward", "finished"}
    assert AdvantageSubject(GroupRelative).buffer().group.bincount().tolist() == [4, 4, 4, 4]
    assert 0 < float(batch.sequence("finished").mean()) < 1


def test_an_extra_that_the_kit_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match=r"Guided reads 'difficulty'.*extras="):
        AdvantageSubject(Guided).buffer()


def test_a_plain_buffer_tells_samples_apart_by_their_rewards_alone() -> None:
    reward = torch.arange(16.0, dtype=torch.float64)
    batch = AdvantageSubject(lambda: GAE(whiten=False, lam=1.0)).plain_buffer(reward)
    assert torch.equal(batch.old_logp, batch.reference_logp) and not batch.old_value.any()
    found: Any = GAE(whiten=False)(batch).advantage[last_response_token(batch)]
    assert torch.equal(found, reward)


def test_the_table_names_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_advantage(GroupRelative()) and not check_advantage(Sign())
    assert "Sign: 1 of 12 checks failed" in capsys.readouterr().out


def test_an_empty_answer_gets_no_advantage() -> None:
    batch = AdvantageSubject(GroupRelative).buffer()
    empty = replace(batch, response_mask=batch.response_mask & (batch.sequence_id > 0))
    assert not GroupRelative()(empty).advantage[batch.sequence_id == 0].any()
