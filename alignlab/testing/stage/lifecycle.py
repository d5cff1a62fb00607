"""Checks of any stage: it continues after a kill, publishes nothing on failure, and makes the same thing twice."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch

from alignlab.artifact import Artifact, Kind, files_of
from alignlab.testing import rules
from alignlab.testing.stage.sandbox import KEY, KillingTracker, StageSubject

_VOLATILE = ("seconds", "tokens_per_second", "peak_memory_mb")
"""Metrics that measure the machine, not the model."""


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
    for at in _moments(len(subject.undisturbed.reports)):
        with subject.sandbox() as sandbox:
            sandbox.kill(at)
            assert not sandbox.store.has(KEY), f"{subject.name}: killed at report {at}, and published all the same"
            left = [p.name for p in (sandbox.store.root / "objects").iterdir()]
            assert not left, f"{subject.name}: killed at report {at}, it left {left}; write below context.folder alone"


def continues_after_a_kill(subject: StageSubject) -> None:
    """Killed and started again, a stage publishes the same weights and files as without the kill."""
    with subject.sandbox() as sandbox:
        tracker = KillingTracker()
        expected = sandbox.run(tracker, key="1" * 64)
        undisturbed = dict(sandbox.metrics)
        for at in _moments(len(tracker.reports)):
            sandbox.kill(at)
            found = sandbox.run(KillingTracker())
            _same_files(subject, found, expected, f"killed at report {at} and started again")
            _same_metrics(subject, sandbox.metrics, undisturbed, f"killed at report {at} and started again")
            shutil.rmtree(found.path)


def same_inputs_make_the_same_artifact(subject: StageSubject) -> None:
    """Two runs from different global random states publish the same files: all randomness comes from `seed`."""
    with subject.sandbox() as sandbox:
        torch.manual_seed(1)
        first = sandbox.run(KillingTracker())
        torch.manual_seed(2)
        second = sandbox.run(KillingTracker(), key="1" * 64)
        _same_files(subject, second, first, "run a second time")


def _moments(reports: int) -> list[int]:
    """Numbers of the reports to kill at: the first, the middle, the last, and one beyond it."""
    return sorted({0, reports // 2, max(reports - 1, 0), reports})


def _same_files(subject: StageSubject, found: Artifact, expected: Artifact, what: str) -> None:
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


def _same_metrics(subject: StageSubject, found: Mapping[str, float], expected: Mapping[str, float], what: str) -> None:
    steady = _steady(found), _steady(expected)
    assert steady[0] == steady[1], f"{subject.name}: {what}, its metrics are {steady[0]}, not {steady[1]}"
