"""AnswerStage: the data regime of methods that learn from given answers (fine-tuning, distillation)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data.records import Example
from alignlab.data.rows import Row, Truncation, check_max_length, example_parts, resolve_max_length, token_batch
from alignlab.data.source import DataSource, Split
from alignlab.objective import Objective
from alignlab.policy import previews
from alignlab.stage import StageContext
from alignlab.training.loop import Loop
from alignlab.training.offline import OfflineStage
from alignlab.training.optimizer import OptimizerSpec


class AnswerStage(OfflineStage[TokenBatch, Row]):
    """Train a policy on answered instructions or chats; only the answers are scored, their stop tokens included.

    Args:
        data: gives the instructions.
        max_length: longest sequence in tokens; null takes the model's context.
        inputs: `policy`; `teacher`, for objectives that distil one; `reference`.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(
        self,
        *,
        data: DataSource,
        objective: Objective[TokenBatch],
        optimizer: OptimizerSpec,
        loop: Loop,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        max_length: int | None = None,
    ) -> None:
        super().__init__(inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop)
        check_max_length(type(self).__name__, max_length)
        self.data = data
        self.max_length = max_length

    @property
    def length(self) -> int:
        """Longest sequence, in tokens."""
        return resolve_max_length(type(self).__name__, self.max_length, self.policy.context)

    def examples(self, split: Split, inputs: Mapping[str, Artifact]) -> Sequence[Example]:
        """The answered instructions of one split."""
        return self.data.instructions(split)

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[list[Row], list[Row]]:
        """Every answer, tokenised with its prompt."""
        skip = self.data.on_bad_record == "skip"
        truncation, tokenizer = Truncation(self.length), self.policy.tokenizer
        self.held_out = self.examples("validation", inputs)
        learnt = self.examples("train", inputs)
        train, held_out = example_parts(tokenizer, learnt, self.held_out, truncation, skip)
        context.tracker.say(f"{len(train)} answers to learn from, {len(held_out)} held out")
        if cut := truncation.describe("instructions"):
            context.tracker.say(cut)
        return train, held_out

    def batch_of(self, units: Sequence[Row]) -> TokenBatch:
        """One sequence per answer."""
        return token_batch(units)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Held-out instructions, answered by the policy."""
        return previews.answered(self.policy, self.held_out, self.seed)
