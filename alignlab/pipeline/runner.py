"""Walk the pipeline: ask the store for each stage, run what is missing, keep the run folder up to date.

The runner depends on no concrete stage. A stage sees the artifacts of its inputs and nothing else of the run.
"""

import contextlib
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.artifact import METRICS, Artifact, fingerprint, write_json
from alignlab.data.cache import Cache, Tell
from alignlab.data.lengths import check_lengths, unknown_words
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import AlignlabError, Pruned, StoreError
from alignlab.pipeline import preflight, provenance
from alignlab.pipeline.history import changed_code, identity_of
from alignlab.pipeline.made import finite, manifest
from alignlab.pipeline.plan import Step
from alignlab.pipeline.recording import RECORDED, describe, made_of, recorded
from alignlab.pipeline.registry import Registration, register
from alignlab.pipeline.run_folder import RunFolder
from alignlab.pipeline.store import Store
from alignlab.pipeline.team import Team, placed
from alignlab.pipeline.waiting import Wait
from alignlab.runtime import Runtime
from alignlab.seed import seed_everything
from alignlab.stage import Build, NullTracker, StageContext, Tracker, never_ends
from alignlab.tracking import Origin, Tracking


@dataclass
class Runner:
    """One run of a pipeline.

    Args:
        steps: from `pipeline.plan`.
        store: where artifacts are kept.
        folder: of the run.
        runtime: where to compute.
        tracking: where to report; None reports nowhere.
        origin: description of the run for W&B.
        began: when the run, or its sweep, began (seconds since 1970); stages to rerun are older than that.
        validated: of the study that the run is a trial of; takes a stage's name, step and metrics, and says whether
            the stage is to end.
        parts: names of steps of which only the part that others share is made (`Stage.make_shared`).
    """

    steps: Sequence[Step]
    store: Store
    folder: RunFolder
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Tracking | None = None
    origin: Origin = field(default_factory=Origin)
    began: float = field(default_factory=time.time)
    validated: Callable[[str, int, Mapping[str, float]], bool] | None = None
    parts: Collection[str] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    _told: list[str] = field(default_factory=list, init=False)
    _to_run: list[Step] = field(default_factory=list, init=False)
    _tracker_now: Tracker | None = field(default=None, init=False)
    _entry: Registration | None = field(default=None, init=False)
    _team: Team = field(init=False)

    def run(self) -> None:
        """Run every stage that the store does not have.

        Raises:
            AlignlabError: a stage failed in a way that the user can fix. Finished stages are kept.
            ConfigError: the runtime does not fit the processes that were started.
        """
        self.runtime = placed(self.runtime)
        self._team = Team(self.runtime, self.store.root, self._stuck)
        with contextlib.closing(self._team):
            self._prepare()
            with recorded(self.tracking, self.origin, self.folder):
                self._walk()

    def _prepare(self) -> None:
        """Check what can be checked beforehand."""
        self._limit_threads()
        needed = {key for step in self.steps for key in (step.fingerprint, *step.input_fingerprints.values())}
        self._entry = register(self.store.root, self.folder.path, needed, self._wait("store"))
        self._share_cache()
        self._to_run = preflight.missing(self.steps, self.store)
        preflight.check_starts(self.steps, self.store)
        preflight.check_records(self._to_run)
        if self.tracking is not None:
            self._tell(self.steps, self.tracking.say)

    def _walk(self) -> None:
        for step in self.steps:
            self.folder.status("running", stage=step.name)
            if step.name in self.parts:
                self._make_shared(step)
                continue
            started = time.perf_counter()
            self._say_what_changed(step)
            since = self.began if step.again else 0.0
            build = functools.partial(self._build, step)
            artifact, cached = self.store.get_or_build(step.fingerprint, build, since, self._wait(step.name))
            self.store.note_code(step.recipe, step.code)
            if cached:
                self._taken(step, artifact)
            self.artifacts[step.name] = artifact
            self.folder.add(step.name, artifact, step.inputs, time.perf_counter() - started, cached)
            if self.tracking is not None:
                self.tracking.results(self.folder.metrics)

    def _share_cache(self) -> None:
        """Let data sources keep what is too large for memory in the store, and report what takes long."""
        cache = Cache(functools.partial(self.store.keep, wait=self._wait("data")), self._progress)
        for source in {id(s): s for step in self.steps for s in step.builder.shared()}.values():
            source.keep_in(cache)

    def _wait(self, what: str) -> Wait:
        return Wait(what, None if self.tracking is None else self.tracking.say)

    @contextmanager
    def _progress(self, what: str) -> Iterator[Tell]:
        """The line of the stage that runs, or one of its own before the first stage."""
        own = nullcontext(self._tracker_now or NullTracker())
        with own if self.tracking is None or self._tracker_now else self.tracking.line("data") as tracker:
            tracker.say(what)
            yield tracker.progress

    def _stuck(self, error: AlignlabError) -> None:
        """Write down why the run ends, where its own thread cannot."""
        self.folder.status("failed", error=str(error))
        print(f"alignlab: {error}\nrun folder: {self.folder.path} (failed)", file=sys.stderr, flush=True)

    def _say_what_changed(self, step: Step) -> None:
        """Name the classes whose code has changed, where that is why a stage is not taken from the store."""
        if self.tracking is not None and (changed := changed_code(step, self.store)):
            self.tracking.say(f"{step.name}: runs again, because the code of {', '.join(changed)} has changed")

    def _taken(self, step: Step, artifact: Artifact) -> None:
        """Say that a stage came from the store, and once if other versions made it, which no fingerprint covers."""
        if self.tracking is None:
            return
        self.tracking.cached(step.name)
        # Of a run that computes nothing there is nothing to compare, unless it is a point of a sweep.
        if self._to_run or self.origin.job is not None:
            self.tracking.taken(describe(step, artifact.path, artifact.path), artifact.metrics(), made_of(artifact))
        before, now = dict(artifact.manifest.get("versions") or {}), provenance.versions()
        changed = [f"{k} {v} (now {now[k]})" for k, v in before.items() if now.get(k, v) != v]
        note = (
            f"some stages in the store were made with {', '.join(changed)}; delete {self.store.root} to make them again"
        )
        if changed and note not in self._told:
            self._told.append(note)
            self.tracking.say(note)

    def _limit_threads(self) -> None:
        if self.runtime.threads:
            import torch

            torch.set_num_threads(self.runtime.threads)

    def _build(self, step: Step, folder: Path, work: Path) -> dict[str, Any]:
        """Run one stage into `folder`; returns the content of its manifest."""
        inputs = {name: self._open(step, name) for name in step.inputs}
        stage = step.build()
        seed_everything(stage.seed)
        started = time.perf_counter()
        with self._tracker(step, folder, work, inputs) as tracker:
            asked: list[str] = []
            context = self._context(step, folder, work, tracker, asked)
            self._tracker_now = tracker
            try:
                metrics = finite(self._team.computed(step, stage, inputs, context), step.name)
            except Pruned:
                _empty(work)  # nobody will come back for it, and checkpoints are large
                raise
            finally:  # if the stage failed, how its data was read may explain why
                self._tracker_now = None
                self._tell([step], tracker.say)
            tracker.summary(metrics)
            made = tracker.made()
        if step.shared_recipe:
            self.store.note_shared(step.shared_recipe, asked)
        write_json(folder / METRICS, metrics)
        seconds = time.perf_counter() - started
        more = {"identity": identity_of(step, self.runtime.precision), "asked": asked, RECORDED: made}
        return {**manifest(step, stage, inputs, seconds), **more}

    def _context(self, step: Step, folder: Path, work: Path, tracker: Tracker, asked: list[str]) -> StageContext:
        """The context of a stage; what it asks for once is noted in `asked`."""
        check = functools.partial(self._check_lengths, step, tracker)
        once = functools.partial(self._once, step, tracker, asked)
        validated = functools.partial(self.validated, step.name) if self.validated else never_ends
        return StageContext(step.name, folder, work, self.runtime, tracker, check, once, validated)

    def _make_shared(self, step: Step) -> None:
        """Make the part of a stage's work that other runs share, by this process alone."""
        assert step.shares is not None
        inputs = {name: self._open(step, name) for name in step.inputs if name in step.shares.inputs}
        stage, asked = step.build(), list[str]()
        seed_everything(stage.seed)
        own = nullcontext(NullTracker()) if self.tracking is None else self.tracking.line(step.shares.name)
        with own as tracker, tempfile.TemporaryDirectory(prefix="alignlab-part-") as scratch:
            stage.make_shared(inputs, self._context(step, Path(scratch), Path(scratch), tracker, asked))
        if asked:
            self.store.note_shared(step.shared_recipe, asked)

    def _once(self, step: Step, tracker: Tracker, asked: list[str], identity: Mapping[str, Any], build: Build) -> Path:
        """See `StageContext.once`."""

        def published(folder: Path, work: Path) -> dict[str, Any]:
            build(folder, work)
            return {"kind": "other", "identity": dict(identity), "asked_by": step.name, **provenance.of_now()}

        key = fingerprint(identity)
        if self._entry is not None:
            self._entry.add([key])
        what = step.shares.name if step.shares is not None else step.name
        since = self.began if step.again else 0.0
        artifact, cached = self.store.get_or_build(key, published, since, Wait(what, tracker.say))
        asked.append(key)
        if cached and step.shares is not None:
            tracker.say(f"{step.shares.name}: found in the store ({key[:8]})")
        return artifact.path

    def _check_lengths(self, step: Step, tracker: Tracker, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        needs = preflight.needs_of_policy(step.name, self._to_run)
        for warning in unknown_words(needs, tokenizer):
            if warning not in self._told:
                self._told.append(warning)
                tracker.say(warning)
        check_lengths(needs, tokenizer, context)

    def _tell(self, steps: Iterable[Step], say: Callable[[str], None]) -> None:
        """Report, once, how the data sources read their files, and what they left out."""
        for note in (note for step in steps for source in step.builder.shared() for note in source.notes()):
            if note not in self._told:
                self._told.append(note)
                say(note)

    def _open(self, step: Step, name: str) -> Artifact:
        source = step.inputs[name]
        if name in step.from_stages:
            return self.artifacts[source]
        artifact = Artifact.open(source)
        if artifact.fingerprint != step.input_fingerprints[name]:
            raise StoreError(f"{step.name}: {source} has changed since this run began; start it again")
        return artifact

    def _tracker(
        self, step: Step, folder: Path, work: Path, inputs: Mapping[str, Artifact]
    ) -> AbstractContextManager[Tracker]:
        if self.tracking is None:
            return nullcontext(NullTracker())
        stage = describe(step, folder, self.store.path(step.fingerprint))
        return self.tracking.stage(stage, work, {name: made_of(artifact) for name, artifact in inputs.items()})


def _empty(folder: Path) -> None:
    """Remove what is in a folder, whose own lock may still be held."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
