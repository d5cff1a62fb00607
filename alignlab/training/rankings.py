"""RankingStage: the data regime of methods that learn from ranked answers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from alignlab.artifact import Artifact, Kind
from alignlab.batch import PreferenceBatch
from alignlab.data import rankings
from alignlab.data.rankings import RowList, ranking_batch, ranking_parts
from alignlab.data.records import Example, Ranking
from alignlab.data.rows import Truncation, check_max_length, resolve_max_length
from alignlab.data.source import DataSource, Need, Split
from alignlab.objective import Objective
from alignlab.policy import previews
from alignlab.stage import StageContext
from alignlab.training.loop import Loop
from alignlab.training.mixed_in import MixedIn
from alignlab.training.offline import OfflineStage
from alignlab.training.optimizer import OptimizerSpec


class RankingStage(OfflineStage[PreferenceBatch, RowList]):
    """Train a policy on ranked answers by any objective on lists (`plackett_luce`).

    The rankings are the data's own (`data.rankings`), or those of the input `rankings`. Each is a unit of the batch,
    its best answer first; they may be of different lengths.

    Args:
        data: gives the rankings where there is no input `rankings`.
        max_length: longest sequence in tokens; null takes the model's context.
        on_bad_record: a ranking with an answer that is cut away as a whole stops the stage, or is left out and counted
            ("skip").
        inputs: `policy`; `rankings`; `reference`, by default the policy as it was.
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = OfflineStage.NOT_IDENTITY | {"on_bad_record"}
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **OfflineStage.OPTIONAL,
        "rankings": frozenset({"rankings"}),
    }
    DROPOUT: ClassVar[bool] = False

    held_out: list[Ranking]
    """The validation split, in the order of its file."""

    def __init__(
        self,
        *,
        objective: Objective[PreferenceBatch],
        optimizer: OptimizerSpec,
        loop: Loop,
        data: DataSource | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        max_length: int | None = None,
        on_bad_record: Literal["stop", "skip"] = "stop",
        mixed_in: Mapping[str, MixedIn] | None = None,
    ) -> None:
        super().__init__(
            inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop, mixed_in=mixed_in
        )
        check_max_length(type(self).__name__, max_length)
        if not objective.lists:
            raise ValueError(
                f"{type(self).__name__}: {type(objective).__name__} takes pairs and no longer lists; choose an "
                f"objective on rankings (plackett_luce), or train it by a stage on preferences"
            )
        self.data = data
        self.max_length = max_length
        self.on_bad_record = on_bad_record

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to train on nothing."""
        super().check_inputs(names)
        if self.data is None and "rankings" not in names:
            raise ValueError(
                f"{type(self).__name__}: there are no rankings; set data to a source that has some, or inputs.rankings "
                f"to a stage or folder with rankings"
            )

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Rankings, where none are given by another stage."""
        if self.data is None or "rankings" in self.inputs:
            return self.mixed_needs()
        return [(self.data, Need("rankings", max_length=self.max_length)), *self.mixed_needs()]

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[list[RowList], list[RowList]]:
        """Every ranking, its answers tokenised with their prompt."""
        truncation = Truncation(resolve_max_length(type(self).__name__, self.max_length, self.policy.context))
        learnt, self.held_out = self._rankings("train", inputs), self._rankings("validation", inputs)
        skip = self.on_bad_record == "skip"
        train, held_out = ranking_parts(self.policy.tokenizer, learnt, self.held_out, truncation, skip)
        context.tracker.say(f"{len(train)} rankings to learn from, {len(held_out)} held out")
        if cut := truncation.describe("rankings"):
            context.tracker.say(cut)
        return train, held_out

    def _rankings(self, split: Split, inputs: Mapping[str, Artifact]) -> list[Ranking]:
        if "rankings" in inputs:
            return rankings.read(inputs["rankings"], split)
        assert self.data is not None, "see check_inputs"
        return list(self.data.rankings(split))

    def batch_of(self, units: Sequence[RowList]) -> PreferenceBatch:
        """Each ranking as a unit."""
        return ranking_batch(units)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """The policy's answers to held-out prompts, next to the best of the ranked ones."""
        best = [Example(r.prompt, r.answers[0], source=r.source) for r in self.held_out]
        return previews.answered(self.policy, best, self.seed)
