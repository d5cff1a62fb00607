"""AnswerStage: the data regime of methods that learn from given answers (fine-tuning, distillation)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.batch import TokenBatch
from alignlab.data import answers
from alignlab.data.records import Example
from alignlab.data.rows import Row, Truncation, check_max_length, example_parts, few, resolve_max_length, token_batch
from alignlab.data.source import DataSource, Need, Split
from alignlab.objective import Objective
from alignlab.policy import LoRA, previews
from alignlab.stage import StageContext
from alignlab.training.loop import Loop
from alignlab.training.offline import OfflineStage
from alignlab.training.optimizer import OptimizerSpec


class AnswerStage(OfflineStage[TokenBatch, Row]):
    """Train a policy on answered instructions or chats; only the answers are scored, their stop tokens included.

    Args:
        data: gives the instructions where there is no input `answers`.
        max_length: longest sequence in tokens; null takes the model's context.
        inputs: `policy`; `answers`, written by another stage; `teacher`, for objectives that distil one; `reference`.
    """

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {**OfflineStage.OPTIONAL, "answers": frozenset({"answers"})}

    def __init__(
        self,
        *,
        objective: Objective[TokenBatch],
        optimizer: OptimizerSpec,
        loop: Loop,
        data: DataSource | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        max_length: int | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        super().__init__(inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop, adapter=adapter)
        check_max_length(type(self).__name__, max_length)
        self.data = data
        self.max_length = max_length

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to train on nothing."""
        super().check_inputs(names)
        if self.data is None and "answers" not in names:
            raise ValueError(
                f"{type(self).__name__}: there is nothing to learn from; set data to a source of instructions, or "
                f"inputs.answers to a stage or folder with answers"
            )

    @property
    def length(self) -> int:
        """Longest sequence, in tokens."""
        return resolve_max_length(type(self).__name__, self.max_length, self.policy.context)

    def examples(self, split: Split, inputs: Mapping[str, Artifact]) -> Sequence[Example]:
        """The answered instructions of one split: those of the input `answers`, or the data's."""
        if "answers" in inputs:
            return answers.read(inputs["answers"], split)
        assert self.data is not None, "see check_inputs"
        return self.data.instructions(split)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Answered instructions, where no answers are given."""
        if self.data is None or "answers" in self.inputs:
            return []
        return [(self.data, Need("instructions", max_length=self.max_length))]

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[Sequence[Row], Sequence[Row]]:
        """Every answer, tokenised with its prompt."""
        skip = self.data is not None and self.data.on_bad_record == "skip"
        truncation, tokenizer = Truncation(self.length), self.policy.tokenizer
        self.held_out = self.examples("validation", inputs)
        learnt = self.examples("train", inputs)
        train, held_out = example_parts(tokenizer, learnt, self.held_out, truncation, skip)
        context.tracker.say(f"{len(train)} answers to learn from, {len(held_out)} held out")
        if cut := truncation.describe("instructions"):
            context.tracker.say(cut)
        return train, few(held_out, context.tracker.say)

    def batch_of(self, units: Sequence[Row]) -> TokenBatch:
        """One sequence per answer."""
        return token_batch(units)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Held-out instructions, answered by the policy."""
        return previews.answered(self.policy, self.held_out, self.seed)
