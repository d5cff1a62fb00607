"""A temporary folder in which a stage runs, is killed, and runs again, as the pipeline would run it."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alignlab.artifact import Artifact, files_of
from alignlab.pipeline.store import Store
from alignlab.runtime import Precision, Runtime
from alignlab.stage import Stage, StageContext, Tracker

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
class Undisturbed:
    """A run that nothing killed.

    Args:
        reports: everything that the tracker was given, in order.
        done: the numbers of the progress reports.
        metrics: that `run` returned.
        changed: names of the inputs whose files are not what they were.
    """

    reports: Sequence[str]
    done: Sequence[int]
    metrics: Mapping[str, float]
    changed: Sequence[str]


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

    @cached_property
    def undisturbed(self) -> Undisturbed:
        """The first run, which several checks look at."""
        tracker = KillingTracker()
        with self.sandbox() as sandbox:
            before = {name: files_of(a.path) for name, a in sandbox.inputs.items()}
            sandbox.run(tracker)
            changed = [name for name, a in sandbox.inputs.items() if files_of(a.path) != before[name]]
            return Undisturbed(tracker.reports, tracker.done, dict(sandbox.metrics), changed)

    @contextmanager
    def sandbox(self) -> Iterator["Sandbox"]:
        """A folder with the inputs and an empty store; removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="conforms-"))
        try:
            yield Sandbox(self, folder, self.inputs(folder / "inputs"), Store(folder / "store"))
        finally:
            shutil.rmtree(folder)


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

    def context(self, precision: Precision | None = None) -> StageContext:
        """A context with new folders, for a stage that is driven without a store."""
        runtime = self.subject.runtime
        runtime = runtime if precision is None else replace(runtime, precision=precision)
        root = Path(tempfile.mkdtemp(dir=self.folder))
        for name in ("out", "work"):
            (root / name).mkdir()
        return StageContext("conforms", root / "out", root / "work", runtime)
