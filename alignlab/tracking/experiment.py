"""Report progress, metrics and tables of the stages to the terminal, to files and to recorders.

The `tracking` config builds one `Tracking` per experiment, which opens one tracker per stage.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alignlab.errors import ConfigError
from alignlab.sanitize import redact, redact_override, redact_text
from alignlab.tracking.process import is_first_process, say
from alignlab.tracking.recorder import Given, Made, Origin, Recorder, StageInfo

if TYPE_CHECKING:  # what the trackers need (rich) stays out of the path of `--help`
    from alignlab.stage import Tracker
    from alignlab.tracking.stage_tracker import StageTracker

T = TypeVar("T")


@dataclass
class Tracking:
    """Where an experiment reports to.

    Each stage gets one progress line, one `curves.jsonl` in its artifact, and a record at each recorder.

    Args:
        progress: show progress lines.
        recorders: by a name of their own, under which an artifact's manifest says where it was recorded; one that is
            null is left out.
    """

    progress: bool = True
    recorders: Mapping[str, Recorder | None] = field(default_factory=dict)
    _left_out: set[str] = field(default_factory=set, init=False, repr=False)
    """Recorders that failed."""
    _is_prepared: bool = field(default=False, init=False, repr=False)

    # ---- for the reader -------------------------------------------------------------------------------------------
    def say(self, text: str) -> None:
        """One line for the reader, outside of any stage."""
        say(text)

    def cached(self, name: str) -> None:
        """The line of a stage that the store already has."""
        if self.progress:
            from alignlab.tracking.terminal import cached

            cached(name)

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

    # ---- events of a run ------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Let the recorders find out, once and before anything trains, where they record. Takes at most a few seconds.

        Raises:
            ConfigError: a recorder was insisted on and cannot work.
        """
        if not self._is_prepared:
            self._is_prepared = True
            self._each(lambda _, recorder: recorder.prepare())

    @contextmanager
    def run(self, origin: Origin) -> Iterator[None]:
        """Record a run; leaving the block with an error says that it failed."""
        overrides = [redact_override(o) for o in origin.overrides]
        shown = dataclasses.replace(origin, config=redact(origin.config), overrides=overrides)
        self._each(lambda _, recorder: recorder.run_begins(shown))
        try:
            yield
        except BaseException as error:
            failed = error
            self._each(lambda _, recorder: recorder.run_ends(failed))
            raise
        self._each(lambda _, recorder: recorder.run_ends(None))

    @contextmanager
    def stage(
        self, stage: StageInfo, work: Path | None = None, made: Mapping[str, Mapping[str, Made]] | None = None
    ) -> Iterator["StageTracker"]:
        """Track one stage; leaving the block with an error marks its records as failed.

        Args:
            stage: its folder receives `curves.jsonl`. Secrets in its configuration are redacted here.
            work: a folder that outlives a crash, so that a resumed stage keeps the first part of its curves.
            made: by the name of an input, what each recorder had of the stage that made it (see `recorded`).
        """
        from alignlab.tracking.curves import Curves
        from alignlab.tracking.stage_tracker import StageTracker
        from alignlab.tracking.terminal import stage_line

        self.prepare()
        if not is_first_process():
            yield StageTracker(None, None, {}, stage.folder)
            return
        records = self._each(lambda name, recorder: recorder.stage_begins(_for(name, stage, made or {})))
        line = stage_line(stage.name) if self.progress else None
        tracker = StageTracker(line, Curves(stage.folder, work), records, stage.folder, self.say)
        try:
            yield tracker
        except BaseException as error:
            tracker.close(error)
            raise
        tracker.close(None)

    def taken(self, stage: StageInfo, metrics: Mapping[str, float], recorded: Mapping[str, Made]) -> None:
        """Report a stage that the store has.

        Args:
            stage: the one taken.
            metrics: that it ended with.
            recorded: the entry of its manifest that says where it was recorded.
        """
        self.prepare()
        own = dataclasses.replace(stage, config=redact(stage.config))
        self._each(lambda n, r: r.cached(dataclasses.replace(own, made_by=recorded.get(n, {})), metrics))

    def results(self, metrics: Mapping[str, float]) -> None:
        """Report all metrics of the run so far, `STAGE/METRIC`."""
        self._each(lambda _, recorder: recorder.results(metrics))

    def to_send(self) -> list[str]:
        """Commands that send what was kept on this machine."""
        return [command for command in self._each(lambda _, recorder: recorder.to_send()).values() if command]

    def _each(self, event: Callable[[str, Recorder], T]) -> dict[str, T]:
        """Answers of the recorders to an event; one that fails is named once, and left out from then on."""
        found = {}
        for name, recorder in self.recorders.items() if is_first_process() else ():
            if recorder is None or name in self._left_out:
                continue
            try:
                found[name] = event(name, recorder)
            except ConfigError:
                raise
            except Exception as error:
                self._left_out.add(name)
                what = redact_text(f"{type(error).__name__}: {error}")
                self.say(f"{name} failed, and nothing more is recorded there: {what}")
        return found


def _for(name: str, stage: StageInfo, made: Mapping[str, Mapping[str, Made]]) -> StageInfo:
    """A stage as one recorder is told of it: without secrets, and with its own records of the inputs."""

    def own(key: str, given: Given) -> Given:
        return dataclasses.replace(given, made_by=made.get(key, {}).get(name, {}))

    inputs = {key: own(key, given) for key, given in stage.inputs.items()}
    config: Any = redact(stage.config)
    return dataclasses.replace(stage, config=config, inputs=inputs, data=redact(stage.data))
