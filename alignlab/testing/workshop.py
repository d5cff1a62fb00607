"""A place to run a stage, kill it, and run it again, as the lifecycle does."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.artifact import Artifact
from alignlab.pipeline.store import Store
from alignlab.stage import Runtime, Stage, StageContext, Tracker

KEY = "0" * 64


class Killed(BaseException):
    """What a process that is told to die looks like from inside; no `except Exception` may swallow it."""


class KillingTracker(Tracker):
    """Writes down every report, and kills the stage at one of them.

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
        """Whether the stage was told to die."""
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
class Subject:
    """A stage under test.

    Args:
        make: builds the stage.
        inputs: writes the artifacts that it takes below a folder.
    """

    make: Callable[[], Stage]
    inputs: Callable[[Path], Mapping[str, Artifact]]
    runtime: Runtime = field(default_factory=lambda: Runtime(accelerator="cpu"))

    @property
    def name(self) -> str:
        """The stage's class."""
        return type(self.make()).__name__

    @contextmanager
    def workshop(self) -> Iterator["Workshop"]:
        """A folder with the inputs and an empty store; removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="conforms-"))
        try:
            yield Workshop(self, self.inputs(folder / "inputs"), Store(folder / "store"))
        finally:
            shutil.rmtree(folder)


@dataclass(frozen=True)
class Workshop:
    """Inputs and a store, in which a stage can be run, killed, and run again."""

    subject: Subject
    inputs: Mapping[str, Artifact]
    store: Store
    metrics: dict[str, float] = field(default_factory=dict)

    def run(self, tracker: KillingTracker, key: str = KEY) -> Artifact:
        """Run the stage as the lifecycle does; the artifact is in the store, or `Killed` comes out."""

        def build(folder: Path, work: Path) -> dict[str, Any]:
            stage = self.subject.make()
            context = StageContext("conforms", folder, work, self.subject.runtime, tracker)
            self.metrics.update(stage.run(self.inputs, context))
            name = self.subject.name
            assert not tracker.killed, f"{name}: was told to die at report {tracker.at}, and went on"
            if tracker.at is not None:
                raise Killed("when its work was done")
            return {"kind": stage.PRODUCES}

        artifact, _ = self.store.get_or_build(key, build)
        return artifact

    def kill(self, at: int) -> None:
        """Run the stage and kill it at its report number `at`."""
        with contextlib.suppress(Killed):
            self.run(KillingTracker(at))
