"""What a stage reports while it runs: progress, metrics and tables, to the terminal, to files and to W&B.

`Tracking` is what the `tracking` config builds, once an experiment; it opens one tracker a stage.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:  # what the trackers need (rich, wandb) stays out of the path of `--help`
    from alignlab.trackers.stage import StageTracker

Mode = Literal["auto", "online", "offline", "off"]


class Tracker(abc.ABC):
    """Takes what one stage reports. A tracker never raises into training and never decides anything."""

    @abc.abstractmethod
    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """One line: `done` of `total` (steps, prompts), and a few numbers (`loss`, `tokens_per_second`)."""

    @abc.abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of one optimizer step; names are `train/...` and `validation/...`."""

    @abc.abstractmethod
    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """A small table, once, at the end of a stage."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """One line for the reader: what was detected, counted or decided."""

    def summary(self, metrics: Mapping[str, float]) -> None:  # noqa: B027  # a tracker need not care
        """The metrics that the stage ended with."""


class NullTracker(Tracker):
    """Hears nothing."""

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        pass

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


@dataclass(frozen=True)
class Origin:
    """The run of an experiment that a stage belongs to, as W&B shall tell it.

    Args:
        experiment: its name.
        group: shared by the stages of one run, and by all jobs of one sweep; `experiment` if empty.
        job: number within a sweep; None outside of one.
        config: the whole resolved configuration.
        overrides: as typed.
    """

    experiment: str = ""
    group: str = ""
    job: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()


@dataclass
class Tracking:
    """Where an experiment reports to.

    Each stage gets one progress line, one `curves.jsonl` in its artifact and, unless `mode` is "off", one W&B run.

    Args:
        mode: of W&B. "auto" is online where a key and a network are found and offline otherwise; "online" asks for
            a key; "offline" writes below `folder` and never calls out; "off" does not import wandb.
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        progress: show progress lines.
        folder: W&B keeps its runs in `<folder>/wandb`.
    """

    mode: Mode = "auto"
    project: str = "alignlab"
    entity: str | None = None
    progress: bool = True
    folder: Path | str = ".alignlab"
    _decided: Mode | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"Tracking: mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        self.folder = Path(self.folder).expanduser().absolute()  # a job may change its working folder later

    def prepare(self) -> None:
        """Decide, once and before anything trains, where W&B runs go, and say so. Takes at most a few seconds.

        Raises:
            ConfigError: `mode` is "online" and there is no key.
        """
        if self._decided is None:
            from alignlab.trackers.connection import decide

            self._decided, reason = decide(self.mode, Path(self.folder))
            if reason:
                self.say(reason)

    def say(self, text: str) -> None:
        """One line for the reader, outside of any stage."""
        from alignlab.trackers.terminal import say

        say(text)

    def cached(self, name: str) -> None:
        """The line of a stage that the store already has."""
        if self.progress:
            from alignlab.trackers.terminal import cached

            cached(name)

    @contextmanager
    def stage(
        self,
        *,
        name: str,
        folder: Path,
        origin: Origin = Origin(),
        fingerprint: str = "",
        config: Mapping[str, Any] | None = None,
        work: Path | None = None,
    ) -> Iterator["StageTracker"]:
        """Track one stage; leaving the block with an error marks its W&B run as failed.

        Args:
            name: of the stage in its pipeline; W&B's job type.
            folder: the artifact being written; receives `curves.jsonl`.
            origin: the run that the stage belongs to.
            fingerprint: of the stage; the first part of the W&B run's id.
            config: the stage's resolved config, laid over that of the whole experiment. Secrets are redacted before
                either leaves the process.
            work: a folder that outlives a crash, so that a resumed stage keeps the first part of its curves.
        """
        from alignlab.trackers.stage import open_stage

        self.prepare()
        tracker = open_stage(
            self,
            name=name,
            origin=origin,
            folder=folder,
            work=work,
            fingerprint=fingerprint,
            config=config or {},
        )
        try:
            yield tracker
        except BaseException as error:
            tracker.close(error)
            raise
        tracker.close(None)

    @property
    def wandb_mode(self) -> Mode:
        """What `mode` came to; `mode` itself before `prepare`."""
        return self._decided or self.mode

    def fall_back(self) -> None:
        """W&B refused an online run: keep this and all later ones offline."""
        self._decided = "offline"
