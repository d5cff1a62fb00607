"""Checks of any stage: it continues after a kill, publishes nothing on failure, and makes the same thing twice."""

import math
from typing import get_args

from alignlab.artifact import Kind
from alignlab.testing import rules
from alignlab.testing.stage.contents import same, steady
from alignlab.testing.stage.sandbox import Made, StageSubject


def version_is_a_literal(subject: StageSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def inputs_and_product_are_declared(subject: StageSubject) -> None:
    """`PRODUCES` is a kind of artifact, and every input is declared in `INPUTS` or `OPTIONAL` with kinds that exist."""
    cls, kinds = type(subject.make()), set(get_args(Kind))
    assert getattr(cls, "PRODUCES", None) in kinds, f"{subject.name}: PRODUCES must be one of {sorted(kinds)}"
    declared = {**cls.INPUTS, **cls.OPTIONAL}
    with subject.sandbox() as sandbox:
        for name, artifact in sandbox.inputs.items():
            if cls.TAKES_ALL and name not in declared:
                continue
            allowed = declared.get(name, cls.FURTHER)
            assert allowed, f"{subject.name}: the input {name} is not declared in INPUTS, OPTIONAL or FURTHER"
            assert artifact.kind in allowed, f"{subject.name}: {name} may not be a {artifact.kind}"


def metrics_are_finite_numbers(subject: StageSubject) -> None:
    """The metrics that `run` returns can be written into metrics.json: names and finite numbers."""
    bad = {k: v for k, v in subject.undisturbed.metrics.items() if not math.isfinite(float(v))}
    assert not bad, f"{subject.name}: {bad} are not finite numbers; leave out what could not be measured"


def reports_progress(subject: StageSubject) -> None:
    """The stage reports how far it is."""
    assert subject.undisturbed.done, f"{subject.name}: never calls context.tracker.progress"


def inputs_are_only_read(subject: StageSubject) -> None:
    """No file of an input is changed, added or removed."""
    changed = subject.undisturbed.changed
    assert not changed, f"{subject.name}: changed the files of its inputs: {', '.join(changed)}"


def publishes_nothing_on_failure(subject: StageSubject) -> None:
    """Killed at its first report, in the middle, or when all is done, a stage leaves no artifact and no part of one."""
    for run in subject.interrupted:
        assert not run.is_published, f"{subject.name}: killed at report {run.at}, and published all the same"
        assert not run.left, (
            f"{subject.name}: killed at report {run.at}, it left {run.left}; write below context.folder alone"
        )


def continues_after_a_kill(subject: StageSubject) -> None:
    """Killed and started again, a stage publishes the same weights and files as without the kill."""
    for run in subject.interrupted:
        if isinstance(run.again, Exception):
            raise run.again
        _check_same(subject, run.again, f"killed at report {run.at} and started again")
        found, expected = steady(run.again.metrics), steady(subject.undisturbed.metrics)
        assert found == expected, (
            f"{subject.name}: killed at report {run.at} and started again, its metrics are {found}, not {expected}"
        )


def same_inputs_make_the_same_artifact(subject: StageSubject) -> None:
    """Two runs from different global random states publish the same files: all randomness comes from `seed`."""
    _check_same(subject, subject.repeated, "run a second time")


def _check_same(subject: StageSubject, found: Made, what: str) -> None:
    """Check that a run has published what the undisturbed one has."""
    expected = subject.undisturbed.contents
    names = sorted(expected)
    assert sorted(found.contents) == names, f"{subject.name}: {what}, it published other files than {names}"
    for name in names:
        assert same(found.contents[name], expected[name]), f"{subject.name}: {what}, it published another {name}"
