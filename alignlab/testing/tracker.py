"""Checks of a recorder: what it receives can be read back, nothing twice, and it changes nothing else."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

from alignlab.errors import Preempted
from alignlab.testing import rules
from alignlab.testing.apply import Checks, DoesNotApply, one_case_each, print_checks
from alignlab.tracking import Given, Origin, Recorder, StageInfo, Tracking
from alignlab.tracking.stage_tracker import StageTracker

if TYPE_CHECKING:
    import pytest

Make: TypeAlias = Callable[[Path], Recorder]
"""Builds a recorder that keeps everything below a folder."""
Curves: TypeAlias = Mapping[str, Mapping[int, float]]
"""By metric, its value at each step."""
Read: TypeAlias = Callable[[Path], Mapping[str, Curves]]
"""The curves that were kept below a folder, by a name that tells stages and runs apart and holds the stage's name.

A step that was recorded twice must not be joined into one: raise an AssertionError.
"""
SECRET = "sk-" + "a" * 40
METRICS = ("train/loss", "validation/loss")


@dataclass(frozen=True)
class TrackerSubject:
    """A recorder under test.

    Args:
        make: builds it.
        read: reads its curves back; None skips the checks that need them.
    """

    make: Make
    read: Read | None = None

    @property
    def name(self) -> str:
        """The recorder's class."""
        with TemporaryDirectory() as folder:
            return type(self.make(Path(folder))).__name__

    @contextmanager
    def stage(
        self, folder: Path, name: str = "sft", job: int | None = None, recorder: Recorder | None = None
    ) -> Iterator[StageTracker]:
        """The tracker of one stage in a run of its own; an error of the recorder is raised, as nowhere else."""
        run = folder / f"run{job or 0}"
        made, work = run / name, folder / "work"
        for needed in (made, work):
            needed.mkdir(parents=True, exist_ok=True)
        tracking = Loud(False, {"tested": recorder or self.make(folder)})
        origin = Origin("kit", "kit/1", job, {"api_key": SECRET, "seed": 1}, ["seed=1", f"a.api_key={SECRET}"], run)
        info = StageInfo(
            name, "0123456789abcdef" * 4, "policy", made, made, {"lr": 0.1, "token": SECRET},
            {"policy": Given("base", "f" * 64)},
        )  # fmt: skip
        with tracking.run(origin), tracking.stage(info, work) as tracker:
            yield tracker

    def curves(self, folder: Path) -> list[tuple[str, Curves]]:
        """Name and curves of every stage that was recorded."""
        if self.read is None:
            raise DoesNotApply("no `read` was given")
        return sorted(self.read(folder).items())


class Loud(Tracking):
    """Raises what a recorder raises: training would continue without it."""

    def say(self, text: str) -> None:
        raise AssertionError(text)


def a_whole_run_is_recorded(subject: TrackerSubject) -> None:
    """Every event of a run is taken, with odd values, in this order."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        recorder = subject.make(folder)
        with subject.stage(folder, recorder=recorder) as tracker:
            tracker.log(1, {"train/loss": float("nan"), "train/kl": 1e300})
            tracker.table("none", [])
            tracker.table("mixed", [{"a": 1, "b": None}, {"a": "x\n|<b>", "c": True}])
            tracker.summary({})
            tracker.summary({"loss": 1.0})
            tracker.made()
        recorder.run_begins(Origin("kit", "kit/2", 1, folder=folder / "two"))
        recorder.cached(StageInfo("base", kind="policy", folder=folder), {"loss": 1.0})
        recorder.cached(StageInfo("evaluate", kind="evaluation", folder=folder), {"taste": 2.0})
        recorder.results({"sft/loss": 1.0})
        recorder.run_ends(None)


def every_number_is_read_back(subject: TrackerSubject) -> None:
    """Logged numbers are found again, by stage, metric and step."""
    with TemporaryDirectory() as place:
        with subject.stage(Path(place)) as tracker:
            for step in (10, 20):
                tracker.log(step, {METRICS[0]: step / 8, METRICS[1]: step / 4})
        found = subject.curves(Path(place))
        assert len(found) == 1 and "sft" in found[0][0], f"{subject.name}: one stage was recorded, found {found}"
        wanted = {METRICS[0]: {10: 1.25, 20: 2.5}, METRICS[1]: {10: 2.5, 20: 5.0}}
        got = {k: dict(v) for k, v in found[0][1].items() if k in METRICS}
        assert got == wanted, f"{subject.name}: was told {wanted}, and has {got}"


def a_resumed_stage_is_one_curve(subject: TrackerSubject) -> None:
    """Killed and started again, a stage has every step once, in the record that is read."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        for steps in ((1, 2, 3), (3, 4)):
            try:
                with subject.stage(folder) as tracker:
                    for step in steps:
                        tracker.log(step, {METRICS[0]: step + len(steps) / 8})
                    raise Preempted("asked to stop")
            except Preempted:
                continue
        _, curves = subject.curves(folder)[-1]
        got, wanted = dict(curves[METRICS[0]]), {1: 1.375, 2: 2.375, 3: 3.25, 4: 4.25}
        assert got == wanted, f"{subject.name}: after a resume at step 3 the curve is {got}, not {wanted}"


def runs_do_not_mix(subject: TrackerSubject) -> None:
    """Two jobs of a sweep that have a stage of the same name are two records."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        for job in (1, 2):
            with subject.stage(folder / str(job), job=job, recorder=subject.make(folder)) as tracker:
                tracker.log(1, {METRICS[0]: float(job)})
        got = sorted(v for _, curves in subject.curves(folder) for v in curves.get(METRICS[0], {}).values())
        assert got == [1.0, 2.0], f"{subject.name}: two jobs logged 1 and 2 at step 1; found {got}"


def an_error_ends_a_record(subject: TrackerSubject) -> None:
    """A stage may end by any error, before anything was logged."""
    for error in (ValueError("x"), KeyboardInterrupt(), Preempted("asked to stop")):
        with TemporaryDirectory() as place:
            try:
                with subject.stage(Path(place)):
                    raise error
            except BaseException as raised:
                assert raised is error, f"{subject.name}: raises {raised!r} where a stage ended by {error!r}"


def manifests_take_plain_text(subject: TrackerSubject) -> None:
    """`made` is text by text, and holds no secret."""
    with TemporaryDirectory() as place, subject.stage(Path(place)) as tracker:
        made = tracker.made().get("tested", {})
        plain = all(isinstance(part, str) for entry in made.items() for part in entry)
        assert plain, f"{subject.name}: made must map text to text, got {dict(made)}"
        assert SECRET not in str(made), f"{subject.name}: made holds a secret"


def nothing_opens_before_it_is_needed(subject: TrackerSubject) -> None:
    """The constructor writes nothing: a plan builds recorders, too."""
    with TemporaryDirectory() as place:
        subject.make(Path(place))
        assert not list(Path(place).iterdir()), f"{subject.name}: its constructor writes files"


def the_process_stays_as_it_is(subject: TrackerSubject) -> None:
    """No global random number is drawn, and the working folder stays: recording must not change what is trained."""
    before = Path.cwd()
    with TemporaryDirectory() as place, rules.no_randomness(subject.name, seed=1):
        with subject.stage(Path(place)) as tracker:
            tracker.log(1, {METRICS[0]: 1.0})
            tracker.table("samples", [{"a": 1}])
            tracker.summary({"loss": 1.0})
        now = Path.cwd()
        os.chdir(before)
    assert now == before, f"{subject.name}: changes the working folder to {now}"


CHECKS: Checks[TrackerSubject] = (
    a_whole_run_is_recorded,
    every_number_is_read_back,
    a_resumed_stage_is_one_curve,
    runs_do_not_mix,
    an_error_ends_a_record,
    manifests_take_plain_text,
    nothing_opens_before_it_is_needed,
    the_process_stays_as_it_is,
)


def conforms_tracker(
    make: Make, *, read: Read | None = None, skip: Mapping[str, str] | None = None
) -> "pytest.MarkDecorator":
    """Put a recorder through every check: `@conforms_tracker(lambda folder: Mine(folder), read=curves_of)`.

    Args:
        make: builds a recorder that keeps everything below the folder that it is given; called often.
        read: see `Read`; without it, the checks that read back are skipped.
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, TrackerSubject(make, read), skip or {})


def check_tracker(make: Make, *, read: Read | None = None, skip: Mapping[str, str] | None = None) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        make: see `conforms_tracker`, as the others.
    """
    subject = TrackerSubject(make, read)
    return print_checks(subject.name, CHECKS, subject, skip or {})
