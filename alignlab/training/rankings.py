"""RankingStage: the data regime of methods that learn from ranked answers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.batch import PreferenceBatch
from alignlab.data import rankings
from alignlab.data.rankings import RowList, ranking_batch, ranking_parts
from alignlab.data.records import Example, Ranking
from alignlab.data.rows import Truncation, resolve_max_length
from alignlab.data.source import Records, Split
from alignlab.policy import previews
from alignlab.stage import StageContext
from alignlab.training.sourced import SourcedStage


class RankingStage(SourcedStage[PreferenceBatch, RowList]):
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
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **SourcedStage.OPTIONAL,
        "rankings": frozenset({"rankings"}),
    }
    SOURCE: ClassVar[str] = "rankings"
    RECORDS: ClassVar[Records] = "rankings"
    CALLED: ClassVar[str] = "rankings"

    held_out: list[Ranking]
    """The validation split, in the order of its file."""

    def _check_objective(self) -> None:
        super()._check_objective()
        if not self.objective.lists:
            raise ValueError(
                f"{type(self).__name__}: {type(self.objective).__name__} takes pairs and no longer lists; choose an "
                f"objective on rankings (plackett_luce), or train it by a stage on preferences"
            )

    def read(
        self, inputs: Mapping[str, Artifact], context: StageContext
    ) -> tuple[Sequence[RowList], Sequence[RowList]]:
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
