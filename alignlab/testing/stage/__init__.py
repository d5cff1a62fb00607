"""Checks of a stage: it survives kills, makes the same thing twice, and trains on what it was given."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from alignlab.artifact import Artifact
from alignlab.stage import Stage
from alignlab.testing.apply import Checks, one_case_each, print_checks
from alignlab.testing.stage.lifecycle import (
    continues_after_a_kill,
    inputs_and_product_are_declared,
    inputs_are_only_read,
    metrics_are_finite_numbers,
    publishes_nothing_on_failure,
    reports_progress,
    same_inputs_make_the_same_artifact,
    version_is_a_literal,
)
from alignlab.testing.stage.records import batches_hold_what_was_given
from alignlab.testing.stage.sandbox import KillingTracker, Sandbox, StageSubject
from alignlab.testing.stage.training import (
    memory_budget_changes_nothing,
    the_reference_stays,
    the_stop_token_is_scored,
)

if TYPE_CHECKING:
    import pytest

__all__ = ["CHECKS", "KillingTracker", "Sandbox", "StageSubject", "check_stage", "conforms_stage"]

Inputs: TypeAlias = Callable[[Path], Mapping[str, Artifact]]
"""Writes the artifacts that a stage takes below a folder."""

CHECKS: Checks[StageSubject] = (
    version_is_a_literal,
    inputs_and_product_are_declared,
    metrics_are_finite_numbers,
    reports_progress,
    publishes_nothing_on_failure,
    continues_after_a_kill,
    same_inputs_make_the_same_artifact,
    inputs_are_only_read,
    memory_budget_changes_nothing,
    the_stop_token_is_scored,
    the_reference_stays,
    batches_hold_what_was_given,
)


def conforms_stage(
    make: Callable[[], Stage],
    *,
    inputs: Inputs = lambda folder: {},
    skip: Mapping[str, str] | None = None,
) -> "pytest.MarkDecorator":
    """Put a stage through every check: `@conforms_stage(make, inputs=lambda folder: {"policy": ...})`.

    Give it a few optimizer steps and a `save_every` of one or two, so that there is something to continue from. The
    last four checks are of stages that train a policy by an objective (`TrainingStage`); others skip them.

    Args:
        make: builds the stage; called often.
        inputs: writes the artifacts that it takes below a folder (`tiny_policy_artifact` and others help).
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, StageSubject(make, inputs), skip or {})


def check_stage(stage: Stage, *, inputs: Inputs = lambda folder: {}, skip: Mapping[str, str] | None = None) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        stage: as built, not prepared; copied for each run.
        inputs: see `conforms_stage`, as `skip`.
    """
    subject = StageSubject(lambda: copy.deepcopy(stage), inputs)
    return print_checks(subject.name, CHECKS, subject, skip or {})
