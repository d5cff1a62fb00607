"""LabelledStage: the data regime of methods that learn from single answers called good or bad."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.batch import LabelledBatch
from alignlab.data import preferences
from alignlab.data.labelled import LabelledRow, labelled_batch, labelled_parts
from alignlab.data.records import Example, Labelled
from alignlab.data.rows import Truncation, resolve_max_length
from alignlab.data.source import Records, Split
from alignlab.policy import previews
from alignlab.stage import StageContext
from alignlab.training.sourced import SourcedStage


class LabelledStage(SourcedStage[LabelledBatch, LabelledRow]):
    """Train a policy on labelled answers by any objective on them (KTO, ...).

    The answers are the data's own (`data.labelled`), or both sides of the input `preferences`: chosen ones are good,
    rejected ones bad. Where the objective reads `mismatched`, each prompt also comes with the answer to another one,
    from which a baseline can be taken.

    Args:
        data: gives the labelled answers where there is no input `preferences`.
        max_length: longest sequence in tokens; null takes the model's context.
        on_bad_record: an answer that is cut away as a whole stops the stage, or is left out and counted ("skip").
        inputs: `policy`; `preferences`; `reference`, by default the policy as it was.
    """

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **SourcedStage.OPTIONAL,
        "preferences": frozenset({"preferences"}),
    }
    SOURCE: ClassVar[str] = "preferences"
    RECORDS: ClassVar[Records] = "labelled"
    CALLED: ClassVar[str] = "labelled answers"
    PROVIDES: ClassVar[frozenset[str]] = SourcedStage.PROVIDES | {"desirable", "mismatched"}

    def read(
        self, inputs: Mapping[str, Artifact], context: StageContext
    ) -> tuple[Sequence[LabelledRow], Sequence[LabelledRow]]:
        """Every answer, tokenised with its prompt."""
        truncation = Truncation(resolve_max_length(type(self).__name__, self.max_length, self.policy.context))
        self.held_out = self._labelled("validation", inputs)
        skip, mismatched = self.on_bad_record == "skip", "mismatched" in self.objective.reads
        learnt = self._labelled("train", inputs)
        train, held_out = labelled_parts(self.policy.tokenizer, learnt, self.held_out, truncation, skip, mismatched)
        context.tracker.say(f"{len(train)} labelled answers to learn from, {len(held_out)} held out")
        if cut := truncation.describe("labelled answers"):
            context.tracker.say(cut)
        return train, held_out

    def _labelled(self, split: Split, inputs: Mapping[str, Artifact]) -> list[Labelled]:
        if "preferences" not in inputs:
            assert self.data is not None, "see check_inputs"
            return list(self.data.labelled(split))
        pairs = preferences.read(inputs["preferences"], split)
        sides = ((p, side) for p in pairs for side in ("chosen", "rejected"))
        return [Labelled(p.prompt, getattr(p, side), side == "chosen", f"{p.source} ({side})") for p, side in sides]

    def batch_of(self, units: Sequence[LabelledRow]) -> LabelledBatch:
        """Each labelled answer, followed by the answer to another prompt where there is one."""
        return labelled_batch(units)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """The policy's answers to held-out prompts that had a good answer, next to that answer."""
        good = [Example(r.prompt, r.answer, source=r.source) for r in self.held_out if r.good]
        return previews.answered(self.policy, good, self.seed)
