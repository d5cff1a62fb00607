"""A temporary folder in which a stage runs, is killed, and runs again, as the pipeline would run it.

The runs that several checks look at are made once: one that nothing kills, a second one, and those that are killed.
"""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from alignlab.artifact import Artifact, files_of
from alignlab.pipeline.store import Store
from alignlab.runtime import Precision, Runtime
from alignlab.stage import Stage, StageContext, Tracker
from alignlab.testing.stage.contents import Contents, read_contents

KEY = "0" * 64


class Killed(BaseException):
    """Stands for a process that is killed; no `except Exception` may swallow it."""


class KillingTracker(Tracker):
    """Records every report, and kills the stage at one of them.

    Args:
        at: number of the report (progress, log, table or line) to kill at, from 0; one that is never reached kills
            when the work is done but not yet published. None never kills.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.reports: list[str] = []
        self.done: list[int] = []

    def _report(self, what: str) -> None:
        self.reports.append(what)
        if self.killed:
            raise Killed(f"at report {self.at}: {what}")

    @property
    def killed(self) -> bool:
        """Whether the stage has reached the report at which it is killed."""
        return self.at is not None and len(self.reports) > self.at

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        self.done.append(done)
        self._report(f"progress {done} of {total}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._report(f"log of step {step}")

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        self._report(f"table {name}")

    def say(self, text: str) -> None:
        self._report(text)


@dataclass(frozen=True)
class Made:
    """Outcome of a run that was not killed.

    Args:
        contents: of its artifact's files.
        metrics: that `run` returned.
    """

    contents: Contents
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Undisturbed(Made):
    """The first run, which nothing killed.

    Args:
        reports: everything that the tracker was given, in order.
        done: the numbers of the progress reports.
        changed: names of the inputs whose files are not what they were.
    """

    reports: Sequence[str]
    done: Sequence[int]
    changed: Sequence[str]


@dataclass(frozen=True)
class Interrupted:
    """A run that was killed, and what came of it when it was started again.

    Args:
        at: number of the report that killed it.
        is_published: whether there was an artifact all the same.
        left: names that it left where artifacts are.
        again: the run that continued it; or the error that it ended with.
    """

    at: int
    is_published: bool
    left: Sequence[str]
    again: Made | Exception


@dataclass(frozen=True)
class StageSubject:
    """A stage under test.

    Args:
        make: builds the stage.
        inputs: writes the artifacts that it takes below a folder.
        runtime: where it computes.
    """

    make: Callable[[], Stage]
    inputs: Callable[[Path], Mapping[str, Artifact]]
    runtime: Runtime = field(default_factory=lambda: Runtime(accelerator="cpu"))

    @property
    def name(self) -> str:
        """The stage's class."""
        return type(self.make()).__name__

    @contextmanager
    def sandbox(self) -> Iterator["Sandbox"]:
        """A folder with the inputs and an empty store; removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="conforms-") as folder:
            yield Sandbox.below(self, Path(folder))

    # ---- runs that several checks look at -------------------------------------------------------------------------
    @cached_property
    def _kept(self) -> "Sandbox":
        """The folder of these runs, which is removed with the subject."""
        folder = tempfile.mkdtemp(prefix="conforms-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Sandbox.below(self, Path(folder))

    @cached_property
    def undisturbed(self) -> Undisturbed:
        """A run that nothing kills."""
        tracker, sandbox = KillingTracker(), self._kept
        before = {name: files_of(a.path) for name, a in sandbox.inputs.items()}
        torch.manual_seed(1)
        made = sandbox.made(tracker)
        changed = [name for name, a in sandbox.inputs.items() if files_of(a.path) != before[name]]
        return Undisturbed(made.contents, made.metrics, tracker.reports, tracker.done, changed)

    @cached_property
    def repeated(self) -> Made:
        """A second run, from another global random state."""
        torch.manual_seed(2)
        return self._kept.made(KillingTracker())

    @cached_property
    def interrupted(self) -> Sequence[Interrupted]:
        """Runs that are killed at the first report, in the middle, at the last, and when all is done."""
        reports, sandbox = len(self.undisturbed.reports), self._kept
        return [sandbox.interrupted(at) for at in sorted({0, reports // 2, max(reports - 1, 0), reports})]


@dataclass(frozen=True)
class Sandbox:
    """Inputs and a store, in which a stage can be run, killed, and run again.

    Args:
        subject: the stage under test.
        folder: holds everything.
        inputs: by name.
        store: where artifacts are published.
        metrics: of the last run.
    """

    subject: StageSubject
    folder: Path
    inputs: Mapping[str, Artifact]
    store: Store
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def below(cls, subject: StageSubject, folder: Path) -> "Sandbox":
        """A new one with the inputs of a subject."""
        return cls(subject, folder, subject.inputs(folder / "inputs"), Store(folder / "store"))

    def run(self, tracker: KillingTracker, key: str = KEY) -> Artifact:
        """Run the stage as the pipeline does and return its artifact; or raise `Killed`."""

        def build(folder: Path, work: Path) -> dict[str, Any]:
            stage = self.subject.make()
            context = StageContext("conforms", folder, work, self.subject.runtime, tracker)
            self.metrics.update(stage.run(self.inputs, context))
            name = self.subject.name
            assert not tracker.killed, f"{name}: was killed at report {tracker.at}, and continued"
            if tracker.at is not None:
                raise Killed("when its work was done")
            return {"kind": stage.PRODUCES}

        artifact, _ = self.store.get_or_build(key, build)
        return artifact

    def kill(self, at: int) -> None:
        """Run the stage and kill it at its report number `at`."""
        with contextlib.suppress(Killed):
            self.run(KillingTracker(at))

    def made(self, tracker: KillingTracker) -> Made:
        """Run it to its end. The artifact is removed, so that the next run makes it again."""
        self.metrics.clear()
        artifact = self.run(tracker)
        found = Made(read_contents(artifact.path), dict(self.metrics))
        shutil.rmtree(artifact.path)
        return found

    def interrupted(self, at: int) -> Interrupted:
        """Kill the stage at its report number `at`, and start it again."""
        self.kill(at)
        is_published, left = self.store.has(KEY), [p.name for p in (self.store.root / "objects").iterdir()]
        try:
            again: Made | Exception = self.made(KillingTracker())
        except Exception as error:
            again = error
        shutil.rmtree(self.store.root)
        return Interrupted(at, is_published, left, again)

    def context(self, precision: Precision | None = None) -> StageContext:
        """A context with new folders, for a stage that is driven without a store."""
        runtime = self.subject.runtime
        runtime = runtime if precision is None else replace(runtime, precision=precision)
        root = Path(tempfile.mkdtemp(dir=self.folder))
        for name in ("out", "work"):
            (root / name).mkdir()
        return StageContext("conforms", root / "out", root / "work", runtime)
