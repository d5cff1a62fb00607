"""Checks of a stage: it goes on after a kill, publishes nothing on failure, and makes the same thing twice."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch

from alignlab.artifact import Artifact, Kind, files_of
from alignlab.stage import Stage
from alignlab.testing import rules
from alignlab.testing.apply import one_case_each
from alignlab.testing.workshop import KEY, KillingTracker, Subject

_VOLATILE = ("seconds", "tokens_per_second")
"""Metrics that measure the machine, not the model."""


def version_is_a_literal(subject: Subject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def inputs_and_product_are_declared(subject: Subject) -> None:
    """`PRODUCES` is a kind of artifact, and every input is declared in `INPUTS` or `OPTIONAL` with kinds that exist."""
    cls, kinds = type(subject.make()), set(get_args(Kind))
    assert getattr(cls, "PRODUCES", None) in kinds, f"{subject.name}: PRODUCES must be one of {sorted(kinds)}"
    declared = {**cls.INPUTS, **cls.OPTIONAL}
    with subject.workshop() as workshop:
        for name, artifact in workshop.inputs.items():
            if cls.TAKES_ALL and name not in declared:
                continue
            assert name in declared, f"{subject.name}: the input {name} is not declared in INPUTS or OPTIONAL"
            assert artifact.kind in declared[name], f"{subject.name}: {name} may not be a {artifact.kind}"


def metrics_are_finite_numbers(subject: Subject) -> None:
    """What `run` returns can be written into metrics.json: names and finite numbers."""
    with subject.workshop() as workshop:
        workshop.run(KillingTracker())
        bad = {k: v for k, v in workshop.metrics.items() if not math.isfinite(float(v))}
        assert not bad, f"{subject.name}: {bad} are no finite numbers; leave out what could not be measured"


def reports_progress(subject: Subject) -> None:
    """Whoever waits for a stage is told how far it is."""
    tracker = KillingTracker()
    with subject.workshop() as workshop:
        workshop.run(tracker)
    assert tracker.done, f"{subject.name}: never calls context.tracker.progress"


def publishes_nothing_on_failure(subject: Subject) -> None:
    """Killed at its first report, in the middle, or when all is done, a stage leaves no artifact and no part of one."""
    for at in _moments(subject):
        with subject.workshop() as workshop:
            workshop.kill(at)
            assert not workshop.store.has(KEY), f"{subject.name}: killed at report {at}, and yet published"
            left = [p.name for p in (workshop.store.root / "objects").iterdir()]
            assert not left, f"{subject.name}: killed at report {at}, it left {left}; write below context.folder alone"


def goes_on_after_a_kill(subject: Subject) -> None:
    """Killed and started again, a stage makes what it would have made undisturbed: the same weights, the same files."""
    with subject.workshop() as workshop:
        workshop.run(KillingTracker(), key="1" * 64)
        undisturbed = dict(workshop.metrics)
        expected = Artifact.open(workshop.store.path("1" * 64))
        for at in _moments(subject):
            workshop.kill(at)
            found = workshop.run(KillingTracker())
            _same_files(subject, found, expected, f"killed at report {at} and started again")
            _same_metrics(subject, workshop.metrics, undisturbed, f"killed at report {at} and started again")
            shutil.rmtree(found.path)


def same_inputs_make_the_same_artifact(subject: Subject) -> None:
    """Two runs from different global random states publish the same files: all randomness comes from `seed`."""
    with subject.workshop() as workshop:
        torch.manual_seed(1)
        first = workshop.run(KillingTracker())
        torch.manual_seed(2)
        second = workshop.run(KillingTracker(), key="1" * 64)
        _same_files(subject, second, first, "run a second time")


def inputs_are_only_read(subject: Subject) -> None:
    """No file of an input is changed, added or removed."""
    with subject.workshop() as workshop:
        before = {name: files_of(a.path) for name, a in workshop.inputs.items()}
        workshop.run(KillingTracker())
        for name, artifact in workshop.inputs.items():
            assert files_of(artifact.path) == before[name], f"{subject.name}: changed the files of its input {name}"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    version_is_a_literal,
    inputs_and_product_are_declared,
    metrics_are_finite_numbers,
    reports_progress,
    publishes_nothing_on_failure,
    goes_on_after_a_kill,
    same_inputs_make_the_same_artifact,
    inputs_are_only_read,
)


def conforms_stage(
    make: Callable[[], Stage],
    *,
    inputs: Callable[[Path], Mapping[str, Artifact]] = lambda folder: {},
    skip: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Put a stage through every check: `@conforms_stage(make, inputs=lambda folder: {"policy": ...})`.

    Give it a few optimizer steps and a `save_every` of one or two, so that there is something to go on from.

    Args:
        make: builds the stage; called often.
        inputs: writes the artifacts that it takes below a folder (`tiny_policy_artifact` and others help).
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, Subject(make, inputs), skip or {})


def _moments(subject: Subject) -> list[int]:
    """Numbers of the reports to kill at: the first, the middle, the last, and one beyond it."""
    tracker = KillingTracker()
    with subject.workshop() as workshop:
        workshop.run(tracker)
    count = len(tracker.reports)
    return sorted({0, count // 2, max(count - 1, 0), count})


def _same_files(subject: Subject, found: Artifact, expected: Artifact, what: str) -> None:
    names = set(files_of(expected.path))
    assert set(files_of(found.path)) == names, f"{subject.name}: {what}, it published other files than {sorted(names)}"
    for name in sorted(names):
        one, other = found.path / name, expected.path / name
        same = _same_tensors(one, other) if name.endswith(".safetensors") else _text(one) == _text(other)
        assert same, f"{subject.name}: {what}, it published another {name}"


def _same_tensors(one: Path, other: Path) -> bool:
    a, b = safetensors.torch.load_file(one), safetensors.torch.load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _text(path: Path) -> bytes | list[object]:
    """The content, of JSON without what measures the machine."""
    raw = path.read_bytes()
    if path.suffix not in (".json", ".jsonl"):
        return raw
    lines = [raw] if path.suffix == ".json" else raw.splitlines()
    return [_steady(json.loads(line)) for line in lines]


def _steady(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _steady(v) for k, v in value.items() if not str(k).endswith(_VOLATILE)}
    return value


def _same_metrics(subject: Subject, found: Mapping[str, float], expected: Mapping[str, float], what: str) -> None:
    steady = _steady(found), _steady(expected)
    assert steady[0] == steady[1], f"{subject.name}: {what}, its metrics are {steady[0]}, not {steady[1]}"
