"""Supervised fine-tuning on answered instructions, with a share of replayed documents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch

from alignlab import Artifact, StageContext, TokenBatch
from alignlab.data.rows import Lazy, Row, document_rows, order_at
from alignlab.data.source import DataSource, Need
from alignlab.seed import fold_in
from alignlab.training import AnswerStage


class SFT(AnswerStage):
    """Fine-tune a policy on (instruction, input, output) or chats; the loss is on the answers.

    Args:
        replay: share of optimizer steps that train on documents instead: without any, a small model forgets what it
            knew while it learns to answer.
        documents: gives the documents that are replayed; null takes those of `data`.
        train_on_prompts: also learn to write the prompts (the markers of the chat template with them), token for token
            as the answers. Validation stays on the answers, so that runs with and without can be compared.

    Source: loss on prompts: Shi et al. 2024, arXiv:2405.14394, who find that it can help where answers are short.
    """

    VERSION: ClassVar[str] = "1"
    IDENTITY_IF_SET: ClassVar[frozenset[str]] = AnswerStage.IDENTITY_IF_SET | {"documents"}

    def __init__(
        self,
        *,
        replay: float = 0.0,
        documents: DataSource | None = None,
        train_on_prompts: bool = False,
        **arguments: Any,
    ) -> None:
        if not 0 <= replay < 1:
            raise ValueError(f"SFT: replay must be in [0, 1), got {replay}; it is the share of steps on documents")
        super().__init__(**arguments)
        self.replay = replay
        self.train_on_prompts = train_on_prompts
        self.documents = documents if documents is not None else self.data
        if replay and self.documents is None:
            raise ValueError(
                f"SFT: replay is {replay}, but there are no documents; set documents or data, or replay to 0"
            )

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Answered instructions, and documents where some are replayed."""
        needs = super().data_needs()
        if self.replay and self.documents is not None:
            needs.append((self.documents, Need("documents", why=f"replay={self.replay}")))
        return needs

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[Sequence[Row], Sequence[Row]]:
        """Rows of answers; the documents are kept aside."""
        train, held_out = super().read(inputs, context)
        if self.train_on_prompts:
            train = Lazy(train, _whole)
        self._documents: Sequence[Row] = []
        if self.replay and self.documents is not None:
            self._documents = document_rows(self.policy.tokenizer, self.documents.documents("train"), self.length)
        return train, held_out

    def batch_at(self, step: int) -> TokenBatch:
        """`batch_size` answers, or on a share `replay` of the steps as many documents."""
        if not self._replays(step):
            return super().batch_at(step)
        index = order_at(step, len(self._documents), self.loop.batch_size, self.seed)
        return self.batch_of([self._documents[i] for i in index])

    def _replays(self, step: int) -> bool:
        generator = torch.Generator().manual_seed(fold_in(self.seed, 2, step))
        return float(torch.rand((), generator=generator)) < self.replay


def _whole(row: Row) -> Row:
    """The row with its prompt scored."""
    return replace(row, mask=[False, *[True] * (len(row.tokens) - 1)])
