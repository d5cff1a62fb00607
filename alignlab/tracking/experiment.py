"""Report progress, metrics and tables of the stages to the terminal, to files and to W&B.

The `tracking` config builds one `Tracking` per experiment, which opens one tracker per stage.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from alignlab.tracking.wandb_mode import Mode

if TYPE_CHECKING:  # what the trackers need (rich, wandb) stays out of the path of `--help`
    from alignlab.stage import Tracker
    from alignlab.tracking.stage_tracker import StageTracker
    from alignlab.tracking.wandb_run import WandbRun

TAG = 64
"""Characters of a tag that W&B takes."""
_OF_THE_MACHINE = re.compile(r"[+~]*(?:hydra[./@=]|store_dir=)")
"""Overrides that say where an experiment ran, not what it is."""


@dataclass(frozen=True)
class Origin:
    """The run of an experiment that a stage belongs to, as W&B shows it.

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
            from alignlab.tracking.wandb_mode import decide

            self._decided, reason = decide(self.mode, Path(self.folder))
            if reason:
                self.say(reason)

    def say(self, text: str) -> None:
        """One line for the reader, outside of any stage."""
        from alignlab.tracking.terminal import say

        say(text)

    def cached(self, name: str) -> None:
        """The line of a stage that the store already has."""
        if self.progress:
            from alignlab.tracking.terminal import cached

            cached(name)

    def evaluated(
        self, name: str, origin: Origin, fingerprint: str, config: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Report an evaluation that the store has, as a finished W&B run: a plot over a sweep has all its points.

        Args:
            name: of the stage in its pipeline.
            origin: the run that took it from the store.
            fingerprint: of the stage.
            config: the stage's.
            metrics: that it ended with.
        """
        self.prepare()
        run = _open_run(self, _keywords(self, name, origin, fingerprint, {**config, "from_store": True}))
        if run is not None:
            try:
                run.summary(metrics)
                run.close(None)
            except Exception as error:  # as in training, nothing of W&B may stop a run
                self.say(f"W&B does not have {name}: {type(error).__name__}: {error}")

    @contextmanager
    def line(self, name: str) -> Iterator["Tracker"]:
        """A progress line outside of any stage, for data that takes long to read."""
        from alignlab.stage import NullTracker
        from alignlab.tracking.terminal import stage_line

        line = stage_line(name) if self.progress else None
        try:
            yield line or NullTracker()
        except BaseException as error:
            if line:
                line.close(error)
            raise
        if line:
            line.close(None)

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
        """The mode in effect; `mode` itself before `prepare`."""
        return self._decided or self.mode

    def fall_back(self) -> None:
        """W&B refused an online run: keep this and all later ones offline."""
        self._decided = "offline"


def open_stage(
    tracking: Tracking,
    *,
    name: str,
    origin: Origin,
    folder: Path,
    work: Path | None,
    fingerprint: str,
    config: Mapping[str, Any],
) -> "StageTracker":
    """Open the listeners of one stage; the first process's alone, where several were launched."""
    from alignlab.tracking.curves import Curves
    from alignlab.tracking.stage_tracker import StageTracker, is_first_process
    from alignlab.tracking.terminal import stage_line

    if not is_first_process():
        return StageTracker(None, None, None, folder)
    run = _open_run(tracking, _keywords(tracking, name, origin, fingerprint, config))
    return StageTracker(stage_line(name) if tracking.progress else None, Curves(folder, work), run, folder)


def _keywords(
    tracking: Tracking, name: str, origin: Origin, fingerprint: str, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a stage's W&B run."""
    from alignlab.sanitize import redact_override

    overrides = [redact_override(o) for o in origin.overrides]
    return {
        "project": tracking.project,
        "entity": tracking.entity,
        "group": origin.group or origin.experiment,
        "name": name if origin.job is None else f"{origin.job}/{name}",
        "job_type": name,
        "tags": _tags(overrides),
        "fingerprint": fingerprint,
        # An evaluation must know the beta of the model that it measured: so the whole experiment is every run's config.
        "config": {**origin.config, **config, "experiment": origin.experiment, "overrides": overrides},
        "folder": Path(tracking.folder),
    }


def _tags(overrides: Sequence[str]) -> list[str]:
    """The overrides, to filter by. Those that W&B would refuse are left out; the config has all of them."""
    return [o for o in dict.fromkeys(overrides) if len(o) <= TAG and not _OF_THE_MACHINE.match(o)]


def _open_run(tracking: Tracking, keywords: Mapping[str, Any]) -> "WandbRun | None":
    """A W&B run; offline where online is refused, none where even that fails."""
    from alignlab.tracking.wandb_run import WandbRun

    for mode in {"online": ("online", "offline"), "offline": ("offline",)}.get(tracking.wandb_mode, ()):
        try:
            return WandbRun(mode=mode, **keywords)
        except Exception as error:  # a wrong key, a service that hangs: nothing of it may stop training
            then = "it continues offline (is the key right?)" if mode == "online" else "this stage is not tracked there"
            tracking.say(f"W&B could not start ({mode}), {then}: {type(error).__name__}: {error}")
            tracking.fall_back()
    return None
