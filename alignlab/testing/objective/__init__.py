"""Checks of an objective: rules that hold for every loss.

Most are traps that widely used frameworks fell into: a loss scale that depends on the micro-batch, masks applied to
the numerator only, metrics averaged over batches, a clip on the wrong side. The others keep objectives pure.
"""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from alignlab.batch import Batch
from alignlab.objective import Objective
from alignlab.testing.apply import Checks, one_case_each, print_checks
from alignlab.testing.objective.contract import (
    aggregation_is_declared,
    arguments_are_attributes,
    declares_what_it_reads,
    same_input_gives_the_same_bits,
    version_is_a_literal,
)
from alignlab.testing.objective.coverage import (
    every_response_token_counts,
    every_sequence_counts,
    everything_declared_counts,
)
from alignlab.testing.objective.direction import learns_the_right_way
from alignlab.testing.objective.masking import (
    masked_values_change_nothing,
    prompt_length_changes_nothing,
    weight_0_changes_nothing,
)
from alignlab.testing.objective.numerics import far_from_the_reference_stays_finite, float32_agrees_with_float64
from alignlab.testing.objective.paths import fused_and_eager_paths_agree
from alignlab.testing.objective.scaling import (
    empty_and_masked_batches_are_free,
    gradient_is_the_same_however_the_batch_is_split,
    gradient_is_the_same_on_two_ranks,
    metrics_are_means_over_units,
    order_and_neighbours_change_nothing,
    weights_count_as_copies,
)
from alignlab.testing.objective.subject import Extra, ObjectiveSubject

if TYPE_CHECKING:
    import pytest

__all__ = ["CHECKS", "Extra", "ObjectiveSubject", "check_objective", "conforms_objective"]

CHECKS: Checks[ObjectiveSubject] = (
    version_is_a_literal,
    arguments_are_attributes,
    declares_what_it_reads,
    same_input_gives_the_same_bits,
    aggregation_is_declared,
    weights_count_as_copies,
    gradient_is_the_same_however_the_batch_is_split,
    gradient_is_the_same_on_two_ranks,
    order_and_neighbours_change_nothing,
    masked_values_change_nothing,
    prompt_length_changes_nothing,
    weight_0_changes_nothing,
    empty_and_masked_batches_are_free,
    metrics_are_means_over_units,
    everything_declared_counts,
    every_sequence_counts,
    every_response_token_counts,
    learns_the_right_way,
    float32_agrees_with_float64,
    far_from_the_reference_stays_finite,
    fused_and_eager_paths_agree,
)


def conforms_objective(
    make: Callable[[], Objective[Any]],
    *,
    batch: Callable[[int], Batch] | None = None,
    extras: Mapping[str, Extra] | None = None,
    skip: Mapping[str, str] | None = None,
) -> "pytest.MarkDecorator":
    """Put an objective through every check: `@conforms_objective(lambda: DPO(beta=0.1))`.

    The decorated test takes `check` and calls it. Batches follow from the class: its type parameter, `needs`, `reads`.

    Args:
        make: builds the objective; called often.
        batch: makes a batch of so many units, for objectives on other batches than the kit's (`ranked_lists` for lists
            of answers); its token ids are below 24.
        extras: for names in `reads` that the kit does not know: name -> function of (batch, generator) that gives a
            `(T, ...)`, `(S, ...)` or `(W, ...)` tensor.
        skip: name of a check -> why it cannot hold here (`{"learns_the_right_way": "unlearns on purpose"}`).
    """
    return one_case_each(CHECKS, ObjectiveSubject(make, batch, dict(extras or {})), skip or {})


def check_objective(
    objective: Objective[Any],
    *,
    batch: Callable[[int], Batch] | None = None,
    extras: Mapping[str, Extra] | None = None,
    skip: Mapping[str, str] | None = None,
) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        objective: copied for each check.
        batch: see `conforms_objective`, as the others.
    """
    subject = ObjectiveSubject(lambda: copy.deepcopy(objective), batch, dict(extras or {}))
    return print_checks(subject.name, CHECKS, subject, skip or {})
