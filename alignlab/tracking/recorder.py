"""The contract of a recorder: where runs are recorded beyond their own folders.

W&B (`alignlab.tracking.Wandb`) and TensorBoard (`alignlab.tracking.TensorBoard`) are two; a plugin may bring a third.
`tracking.recorders` lists them by name, and all of them receive the same events:

    run_begins, then for each stage either
        stage_begins -> log..., table..., summary -> ends, or
        cached,
    results after each of them, and run_ends.

A recorder only receives. What it receives holds no secrets. It may raise: it is named once and left out, and training
continues. It draws no global random numbers and changes nothing else of the process. Of several processes the first one
alone records. `alignlab.tracking.say` prints one line for the reader.
"""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Made: TypeAlias = Mapping[str, str]
"""Where a recorder recorded a stage, in its own words: the id of a run, its address."""


@dataclass(frozen=True)
class Origin:
    """The run of an experiment that stages belong to.

    Args:
        experiment: its name.
        group: shared by the stages of one run, and by all jobs of one sweep; `experiment` if empty.
        job: number within a sweep; None outside of one.
        config: the whole resolved configuration.
        overrides: as typed.
        folder: of the run; None where it has none.
    """

    experiment: str = ""
    group: str = ""
    job: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    folder: Path | None = None


@dataclass(frozen=True)
class Given:
    """An input of a stage.

    Args:
        source: name of the stage, or the folder, that it comes from.
        fingerprint: of the artifact.
        made_by: `StageRecord.made` of the stage that made it; empty where this recorder did not record that one.
    """

    source: str
    fingerprint: str = ""
    made_by: Made = field(default_factory=dict)


@dataclass(frozen=True)
class StageInfo:
    """A stage that begins, or that the store has.

    Args:
        name: in its pipeline.
        fingerprint: of the artifact that it makes.
        kind: of that artifact.
        folder: where the artifact is written, or lies.
        path: where the artifact will be found once it is published.
        config: the stage's resolved configuration.
        inputs: by name.
        data: configuration of the data that it reads itself; empty where it reads none.
        data_digest: of those data.
        made_by: of a stage that the store has, `StageRecord.made` of the run that made it.
    """

    name: str
    fingerprint: str = ""
    kind: str = "other"
    folder: Path = Path()
    path: Path = Path()
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Given] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    data_digest: str = ""
    made_by: Made = field(default_factory=dict)


class StageRecord(abc.ABC):
    """The record of one stage while it runs."""

    @abc.abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """All finite numbers of one optimizer step. Steps rise; a resumed stage begins with those before its resume."""

    @abc.abstractmethod
    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """A small table, possibly empty; values are plain, and text is printable."""

    @abc.abstractmethod
    def summary(self, metrics: Mapping[str, float]) -> None:
        """The metrics that the stage ended with."""

    @abc.abstractmethod
    def ends(self, error: BaseException | None) -> None:
        """The stage is over: it has failed, was asked to stop (`Preempted`), or None."""

    def page(self, name: str, file: Path) -> None:  # noqa: B027  # optional
        """A self-contained HTML page."""

    def made(self) -> Made:
        """Entries for the artifact's manifest, by which later runs find this record; plain text, no secrets."""
        return {}


class NoRecord(StageRecord):
    """Of a stage that is not recorded."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        pass

    def summary(self, metrics: Mapping[str, float]) -> None:
        pass

    def ends(self, error: BaseException | None) -> None:
        pass


class Recorder(abc.ABC):
    """Receives the events of one run at a time. Built from configuration; its constructor opens nothing."""

    def prepare(self) -> None:  # noqa: B027  # optional
        """Find out where to record, before anything trains; called before the first stage that begins or is cached.

        Raises:
            ConfigError: recording was insisted on and cannot be done.
        """

    def run_begins(self, run: Origin) -> None:  # noqa: B027  # optional
        """A run begins."""

    @abc.abstractmethod
    def stage_begins(self, stage: StageInfo) -> StageRecord:
        """A stage begins that the store does not have."""

    def cached(self, stage: StageInfo, metrics: Mapping[str, float]) -> None:  # noqa: B027  # optional
        """The store has a stage, with the metrics that it ended with. Not told of a run that computes nothing."""

    def results(self, metrics: Mapping[str, float]) -> None:  # noqa: B027  # optional
        """All metrics of the run so far, `STAGE/METRIC` as in `metrics.json`."""

    def run_ends(self, error: BaseException | None) -> None:  # noqa: B027  # optional
        """The run is over."""

    def to_send(self) -> str:
        """Command that sends what stayed on this machine, the same for all jobs of a sweep; empty where nothing did."""
        return ""
