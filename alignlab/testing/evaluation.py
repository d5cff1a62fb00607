"""Checks of an evaluation: the same policy, sampling and seed give the same finite numbers."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from alignlab.errors import ConfigError
from alignlab.metrics import Panel, check_panels
from alignlab.policy import Policy, Sampling
from alignlab.testing import rules
from alignlab.testing.apply import Checks, one_case_each, print_checks
from alignlab.testing.artifacts import tiny_policy

if TYPE_CHECKING:
    import pytest

    import alignlab.evaluation.base

_COLUMNS = ("prompt", "answer", "kind", "finished")
"""Names that every sample has."""


@dataclass(frozen=True)
class EvaluationSubject:
    """An evaluation under test.

    Args:
        make: builds the evaluation.
        policy: builds the policy that is measured.
        sampling: how it answers.
    """

    make: Callable[[], "alignlab.evaluation.base.Evaluation"]
    policy: Callable[[], Policy] = tiny_policy
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=6))

    @property
    def name(self) -> str:
        """The evaluation's class."""
        return type(self.make()).__name__

    def run(self, evaluation: Any = None, policy: Policy | None = None, seed: int = 3) -> Any:
        """The result of a new evaluation of a new policy, unless one is given."""
        return (evaluation or self.make())(policy or self.policy(), self.sampling, seed)


def version_is_a_literal(subject: EvaluationSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: EvaluationSubject) -> None:
    """Constructor arguments are attributes that cannot be changed afterwards."""
    rules.check_arguments(subject.make())


def metrics_are_finite_numbers(subject: EvaluationSubject) -> None:
    """There are metrics, and every one is a finite number; what is undefined is left out."""
    metrics = subject.run().metrics
    assert metrics, f"{subject.name}: measured nothing"
    bad = {k: v for k, v in metrics.items() if not isinstance(v, int | float) or not math.isfinite(v)}
    assert not bad, f"{subject.name}: {bad} are not finite numbers; leave out what could not be measured"


def columns_declare_every_metric(subject: EvaluationSubject) -> None:
    """`columns` names every metric once, and a share is a number from 0 to 1."""
    columns = {column.metric: column for column in subject.make().columns}
    twice = len(subject.make().columns) - len(columns)
    assert columns and not twice, f"{subject.name}: columns must name each metric once, got {sorted(columns)}"
    for name, value in subject.run().metrics.items():
        assert name in columns, f"{subject.name}: measures {name}, which its columns do not declare"
        assert not columns[name].share or 0 <= float(value) <= 1, (
            f"{subject.name}: {name} is declared as a share and is {float(value):g}"
        )


def samples_can_be_stored(subject: EvaluationSubject) -> None:
    """Every sample is a JSON object with prompt, answer, kind and whether the answer was finished."""
    for sample in subject.run().samples:
        missing = [name for name in _COLUMNS if name not in sample]
        assert not missing, f"{subject.name}: a sample lacks {', '.join(missing)}: {dict(sample)}"
        try:
            json.dumps(dict(sample), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{subject.name}: a sample cannot be written as JSON ({error}): {sample}") from error


def panels_are_plain_data(subject: EvaluationSubject) -> None:
    """Panels have titles of their own, name declared metrics, and can be written as JSON and read again."""
    evaluation = subject.make()
    panels = subject.run(evaluation).panels
    try:
        check_panels(subject.name, panels, evaluation.columns)
        for panel in panels:
            Panel.from_json(json.loads(json.dumps(panel.to_json(), allow_nan=False)), panel.title)
    except (ConfigError, TypeError, ValueError) as error:
        raise AssertionError(f"{subject.name}: {error}") from error


def same_policy_gives_the_same_numbers(subject: EvaluationSubject) -> None:
    """No memory and no global randomness: measured again, from another random state, the result is the same."""
    evaluation = subject.make()
    with rules.no_randomness(subject.name, seed=1):
        first = subject.run(evaluation)
    subject.run(evaluation, seed=9)
    with rules.no_randomness(subject.name, seed=2):
        second = subject.run(evaluation)
    assert dict(first.metrics) == dict(second.metrics), (
        f"{subject.name}: measured again, its metrics are {dict(second.metrics)}, not {dict(first.metrics)}"
    )
    assert [dict(s) for s in first.samples] == [dict(s) for s in second.samples], (
        f"{subject.name}: measured again, its samples differ"
    )
    assert list(first.panels) == list(second.panels), f"{subject.name}: measured again, its panels differ"


def policy_is_only_read(subject: EvaluationSubject) -> None:
    """Neither its weights nor its mode are changed."""
    policy = subject.policy()
    before, mode = {k: v.clone() for k, v in policy.state_dict().items()}, policy.training
    subject.run(policy=policy)
    after = policy.state_dict()
    changed = [k for k, v in before.items() if not torch.equal(v, after[k])]
    assert not changed, f"{subject.name}: changes the policy's weights: {', '.join(changed[:3])}"
    assert policy.training == mode, f"{subject.name}: changes the policy's mode (training={policy.training})"


def reports_progress(subject: EvaluationSubject) -> None:
    """Progress is reported in order, and ends with all that is to be done."""
    reports: list[tuple[int, int]] = []
    subject.make()(subject.policy(), subject.sampling, 3, lambda done, total: reports.append((done, total)))
    assert reports, f"{subject.name}: never calls progress(done, total)"
    done = [d for d, _ in reports]
    assert done == sorted(done) and reports[-1][0] == reports[-1][1], (
        f"{subject.name}: progress must rise to the total, got {reports}"
    )


CHECKS: Checks[EvaluationSubject] = (
    version_is_a_literal,
    arguments_are_attributes,
    metrics_are_finite_numbers,
    columns_declare_every_metric,
    samples_can_be_stored,
    panels_are_plain_data,
    same_policy_gives_the_same_numbers,
    policy_is_only_read,
    reports_progress,
)


def conforms_evaluation(
    make: Callable[[], "alignlab.evaluation.base.Evaluation"],
    *,
    policy: Callable[[], Policy] = tiny_policy,
    sampling: Sampling | None = None,
    skip: Mapping[str, str] | None = None,
) -> "pytest.MarkDecorator":
    """Put an evaluation through every check: `@conforms_evaluation(lambda: RewardEvaluation(...))`.

    Args:
        make: builds the evaluation; called often.
        policy: builds the policy that is measured; by default the kit's, with a vocabulary of two dozen words.
        sampling: how it answers; by default at temperature 1, up to 6 tokens.
        skip: name of a check -> why it cannot hold here.
    """
    sampling = sampling or Sampling(max_new_tokens=6)
    return one_case_each(CHECKS, EvaluationSubject(make, policy, sampling), skip or {})


def check_evaluation(
    evaluation: "alignlab.evaluation.base.Evaluation",
    *,
    policy: Callable[[], Policy] = tiny_policy,
    sampling: Sampling | None = None,
    skip: Mapping[str, str] | None = None,
) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        evaluation: copied for each check.
        policy: see `conforms_evaluation`, as the others.
    """
    sampling = sampling or Sampling(max_new_tokens=6)
    subject = EvaluationSubject(lambda: copy.deepcopy(evaluation), policy, sampling)
    return print_checks(subject.name, CHECKS, subject, skip or {})
