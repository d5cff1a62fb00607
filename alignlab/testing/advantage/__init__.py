"""Checks of an advantage: a pure function of the whole rollout buffer, of its response tokens alone."""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from alignlab.advantage import Advantage
from alignlab.testing.advantage.checks import (
    advantages_are_finite,
    arguments_are_attributes,
    better_answers_get_more,
    declares_what_it_reads,
    equal_rewards_give_no_advantage,
    is_zero_outside_the_response_mask,
    keeps_the_buffer,
    masked_values_change_nothing,
    order_changes_nothing,
    prompt_length_changes_nothing,
    same_input_gives_the_same_bits,
    version_is_a_literal,
)
from alignlab.testing.advantage.subject import AdvantageSubject, RolloutExtra
from alignlab.testing.apply import Checks, one_case_each, print_checks

if TYPE_CHECKING:
    import pytest

__all__ = ["CHECKS", "AdvantageSubject", "RolloutExtra", "check_advantage", "conforms_advantage"]

CHECKS: Checks[AdvantageSubject] = (
    version_is_a_literal,
    arguments_are_attributes,
    declares_what_it_reads,
    keeps_the_buffer,
    same_input_gives_the_same_bits,
    is_zero_outside_the_response_mask,
    masked_values_change_nothing,
    prompt_length_changes_nothing,
    order_changes_nothing,
    advantages_are_finite,
    equal_rewards_give_no_advantage,
    better_answers_get_more,
)


def conforms_advantage(
    make: Callable[[], Advantage],
    *,
    extras: Mapping[str, RolloutExtra] | None = None,
    skip: Mapping[str, str] | None = None,
) -> "pytest.MarkDecorator":
    """Put an advantage through every check: `@conforms_advantage(lambda: GAE(beta=0.1))`.

    Args:
        make: builds the advantage; called often.
        extras: for names in `reads` that the kit does not know: name -> function of (batch, generator) that gives a
            `(T, ...)` or `(S, ...)` tensor.
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, AdvantageSubject(make, dict(extras or {})), skip or {})


def check_advantage(
    advantage: Advantage,
    *,
    extras: Mapping[str, RolloutExtra] | None = None,
    skip: Mapping[str, str] | None = None,
) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        advantage: copied for each check.
        extras: see `conforms_advantage`, as `skip`.
    """
    subject = AdvantageSubject(lambda: copy.deepcopy(advantage), dict(extras or {}))
    return print_checks(subject.name, CHECKS, subject, skip or {})
