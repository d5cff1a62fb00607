"""Supervised fine-tuning on answered instructions, with a share of replayed documents."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from alignlab.artifact import Artifact, Kind
from alignlab.batch import TokenBatch
from alignlab.data.rows import (
    Row,
    Truncation,
    check_max_length,
    document_rows,
    example_rows,
    longest,
    order_at,
    portions,
    token_batch,
)
from alignlab.data.source import DataSource
from alignlab.objective import Objective
from alignlab.policy import Policy, previews
from alignlab.seed import fold_in
from alignlab.stage import StageContext
from alignlab.training import Loop, OptimizerSpec, TrainingStage


class SFT(TrainingStage[TokenBatch]):
    """Fine-tune a policy on (instruction, input, output) or chats; the loss is on the answers only.

    Args:
        data: gives the instructions, and the documents that are replayed.
        replay: share of optimizer steps that train on documents instead: without any, a small model forgets what it
            knew while it learns to answer.
        max_length: longest sequence in tokens; null takes the model's context.
    """

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "policy"

    def __init__(
        self,
        *,
        data: DataSource,
        objective: Objective[TokenBatch],
        optimizer: OptimizerSpec,
        loop: Loop,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        replay: float = 0.0,
        max_length: int | None = None,
    ) -> None:
        if not 0 <= replay < 1:
            raise ValueError(f"SFT: replay must be in [0, 1), got {replay}; it is the share of steps on documents")
        super().__init__(inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop)
        self.data = data
        self.replay = replay
        check_max_length(type(self).__name__, max_length)
        self.max_length = max_length

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Policy, rows of answers, rows of documents."""
        self.policy = Policy.load(inputs["policy"], context.runtime.dtype)
        length = longest(type(self).__name__, self.max_length, self.policy.context)
        skip = self.data.on_bad_record == "skip"
        truncation = Truncation(length)
        tokenizer = self.policy.tokenizer
        self._rows = example_rows(tokenizer, self.data.instructions("train"), truncation, skip)
        held_out = self.data.instructions("validation")
        self._validation = example_rows(tokenizer, held_out, truncation, skip) if held_out else []
        self._documents: list[Row] = []
        if self.replay:
            self._documents = document_rows(tokenizer, self.data.documents("train"), length)
        context.tracker.say(f"{len(self._rows)} answers to learn from, {len(self._validation)} held out")
        if cut := truncation.describe("instructions"):
            context.tracker.say(cut)

    def batch_at(self, step: int) -> TokenBatch:
        """`batch_size` answers, or on a share `replay` of the steps as many documents."""
        rows = self._documents if self._replays(step) else self._rows
        return token_batch([rows[i] for i in order_at(step, len(rows), self.loop.batch_size, self.seed)])

    def _replays(self, step: int) -> bool:
        generator = torch.Generator().manual_seed(fold_in(self.seed, 2, step))
        return float(torch.rand((), generator=generator)) < self.replay

    def validation_batches(self) -> Sequence[TokenBatch]:
        """Held-out answers."""
        return [token_batch(part) for part in portions(self._validation, self.loop.batch_size)]

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Held-out instructions, answered."""
        return previews.answered(self.policy, self.data.instructions("validation"), self.seed)
