"""Stage: one step of a model's life. Named artifacts in, one artifact out."""

import abc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from alignlab.artifact import Artifact, Kind, fingerprint
from alignlab.data.source import DataSource, Need
from alignlab.runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Tracker(abc.ABC):
    """Receives the reports of one stage. A tracker never raises into training and never decides anything."""

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
        """One line for the user on something that was detected, counted or decided."""

    def summary(self, metrics: Mapping[str, float]) -> None:  # noqa: B027  # optional
        """The metrics that the stage ended with."""

    def made(self) -> Mapping[str, Mapping[str, str]]:
        """Where each recorder recorded the stage, for the artifact's manifest."""
        return {}

    def flush(self) -> None:  # noqa: B027  # not every tracker buffers
        """Write out what is buffered: a spawned process ends without closing its tracker."""


class NullTracker(Tracker):
    """Ignores every report."""

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        pass

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def never_ends(step: int, metrics: Mapping[str, float]) -> bool:
    """Whether a validation ends the stage: never, where no study looks at it."""
    return False


Build: TypeAlias = Callable[[Path, Path], None]
"""Writes something into its first folder; its second folder outlives a crash."""


@dataclass(frozen=True)
class Shared:
    """A part of a stage's work that runs share (see `StageContext.once`), told before the stage runs.

    It lets a plan say whether the store is likely to have it, and `alignlab prepare` make it before jobs that share it
    start (`Stage.make_shared`); what decides is the identity that `once` is given.

    Args:
        name: of the part: "reference_logp".
        inputs: names of the stage's inputs that it is made of.
        without: constructor arguments of the stage that it does not depend on.
        further: plain values that it depends on, too.
    """

    name: str
    inputs: frozenset[str]
    without: frozenset[str]
    further: Mapping[str, Any]


@dataclass(frozen=True)
class StageContext:
    """Everything that a stage is given to run.

    Args:
        name: the stage's name in its pipeline.
        folder: where the artifact is written; published when `run` returns, thrown away when it raises.
        work: a folder of this stage that outlives a crash, for resumable checkpoints.
        runtime: where to compute.
        tracker: takes progress, metrics and tables.
        check_lengths: to be called with the tokenizer and the context (tokens) of the stage's policy before it trains;
            raises `DataError` where records that this stage or one after it will read cannot be used by that policy.
        store: finds what is made once for all runs, or has it made; None makes it in `work`. See `once`.
        validated: takes the step and the metrics of a validation, on the first process; True says that a study has no
            use for more of it, so that the stage ends by raising `Pruned`.
    """

    name: str
    folder: Path
    work: Path
    runtime: Runtime = field(default_factory=Runtime)
    tracker: Tracker = field(default_factory=NullTracker)
    check_lengths: "Callable[[PreTrainedTokenizerBase, int], None]" = lambda tokenizer, context: None
    store: "Callable[[Mapping[str, Any], Build], Path] | None" = None
    validated: "Callable[[int, Mapping[str, float]], bool]" = never_ends

    def once(self, identity: Mapping[str, Any], build: Build) -> Path:
        """A folder with what `build` writes: made once for all runs that ask for the same, published when complete.

        Args:
            identity: everything that the result depends on, as plain JSON. A class states a `VERSION` in it.
            build: writes the files into its first folder. Its second one is kept when it fails, so that it can
                continue. Several processes that compute the stage call it together, with the same second folder; what
                all but the first write into their first one is thrown away.
        """
        from alignlab import distributed

        if distributed.world_size() == 1:
            return self._once(identity, build)
        if distributed.rank() == 0:

            def shared(folder: Path, work: Path) -> None:
                distributed.from_first(work)
                build(folder, work)

            made = self._once(identity, shared)
            distributed.from_first(None)
            return distributed.from_first(made)
        none: Path | None = None
        while (work := distributed.from_first(none)) is not None:
            with tempfile.TemporaryDirectory() as scratch:
                build(Path(scratch), work)
        return distributed.from_first(Path())

    def _once(self, identity: Mapping[str, Any], build: Build) -> Path:
        if self.store is not None:
            return self.store(identity, build)
        made = self.work / "once" / fingerprint(identity)[:32]
        if not made.is_dir():
            begun = made.with_suffix(".begun")
            for part in ("out", "work"):
                (begun / part).mkdir(parents=True, exist_ok=True)
            build(begun / "out", begun / "work")
            (begun / "out").rename(made)
        return made


class Stage(abc.ABC):
    """One step of the lifecycle.

    A concrete class states its `VERSION` (raise it when the same arguments begin to make something else), what it
    takes and what it makes. It never sees a configuration object, only its constructor's arguments.

    Args:
        inputs: for each of `INPUTS` (and `OPTIONAL`), the name of another stage or a folder.
        seed: of everything random in the stage.
    """

    VERSION: ClassVar[str]
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {}
    """Name of each required input and the kinds of artifact it may be."""
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {}
    FURTHER: ClassVar[frozenset[Kind]] = frozenset()
    """Kinds of artifact that further inputs may be, under names of the user's choice; empty allows none."""
    TOGETHER: ClassVar[bool] = False
    """Where there are several processes (`Runtime.processes`), all of them run the stage, each its share; else the
    first one does, and the others wait."""
    IS_HELPED: ClassVar[bool] = False
    """The others sample a part of the answers that it asks `generate` for. It must sample with policies as it has
    loaded them: the others read them from the same folder."""
    TAKES_ALL: ClassVar[bool] = False
    """The stage takes every other stage of its pipeline as an input (the report does)."""
    PRODUCES: ClassVar[Kind]
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"inputs"})
    """Constructor arguments that do not change what is made (dotted for nested ones: `loop.micro_batch_tokens`)."""
    IDENTITY_IF_SET: ClassVar[frozenset[str]] = frozenset()
    """Constructor arguments that are part of the identity only where they are not null: as if there were no such
    argument, so that what was made before there was one is still found."""

    def __init__(self, inputs: Mapping[str, str] | None = None, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= seed < 2**63:
            raise ValueError(f"{type(self).__name__}: seed must be from 0 to 2**63 - 1, got {seed}")
        self.inputs = dict(inputs or {})
        self.seed = seed

    def check_inputs(self, names: frozenset[str]) -> None:  # noqa: B027  # most stages take any combination
        """Refuse a combination of inputs that the stage cannot work with, before anything runs.

        Args:
            names: of the inputs that are given, known to be among `INPUTS` and `OPTIONAL`.

        Raises:
            ValueError: names the stage, the rule and what to set.
        """

    def check_runtime(self, runtime: Runtime) -> None:  # noqa: B027  # most stages run anywhere
        """Refuse a runtime that the stage cannot work on (no GPU, a package that is missing), before anything runs.

        Raises:
            ConfigError: names what is missing, and what to do.
        """

    def architecture(self) -> "PreTrainedModel | None":
        """The layers of the model that it makes from nothing, without weights; None where they are not known yet."""
        return None

    def check_start(self, start: "Artifact | Stage") -> None:  # noqa: B027  # most stages take any policy
        """Refuse a policy that the stage could not train, before anything runs.

        Args:
            start: where the input `policy` comes from: an artifact that is there, or the first of the stages that will
                make it.

        Raises:
            ConfigError: says what does not fit.
        """

    def data_needs(self) -> Sequence[tuple[DataSource, Need]]:
        """Records that the stage reads from data sources; they are checked for all stages before the first one runs."""
        return ()

    def needs_notes(self) -> frozenset[str]:
        """Numbers that every judgement of the input `preferences` must have (`Comparison.notes`)."""
        return frozenset()

    def shares(self) -> Shared | None:
        """The part of its work that it will ask `StageContext.once` for; None where there is none."""
        return None

    def make_shared(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:  # noqa: B027  # few share
        """Ask `context.once` for what `shares` names, as `run` would, and do nothing else.

        Args:
            inputs: those of `Shared.inputs`.
            context: its folders are thrown away.
        """

    @abc.abstractmethod
    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Do the work, write the artifact's files into `context.folder`, and return its metrics (finite numbers)."""
