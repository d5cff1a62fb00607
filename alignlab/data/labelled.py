"""Labelled answers as rows and batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignlab.batch import LabelledBatch
from alignlab.data.chat import encode_answer
from alignlab.data.mismatched import answers_to_other_prompts
from alignlab.data.records import Labelled
from alignlab.data.rows import quiet
from alignlab.data.tokenised import settled
from alignlab.data.truncation import Row, Truncation
from alignlab.data.types import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LabelledRow:
    """A labelled answer; with `mismatched`, the same prompt with the answer to another one."""

    answer: Row
    good: bool
    mismatched: Row | None = None

    @property
    def rows(self) -> list[Row]:
        """Its sequences."""
        return [self.answer] if self.mismatched is None else [self.answer, self.mismatched]


@dataclass(frozen=True)
class _Paired:
    """A labelled answer with the answer to another prompt, where one is asked for."""

    record: Labelled
    other: str | None

    @property
    def source(self) -> str:
        return self.record.source


def labelled_parts(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Labelled],
    held_out: Sequence[Labelled],
    truncation: Truncation,
    skip: bool = False,
    mismatched: bool = False,
) -> tuple[Sequence[LabelledRow], Sequence[LabelledRow]]:
    """Labelled answers of both parts, the answer and its stop token scored.

    Args:
        tokenizer: of the policy.
        train: records to learn from.
        held_out: records to validate on.
        truncation: cuts and counts.
        skip: leave out what cannot be used.
        mismatched: also pair each prompt with an answer to another one, see `answers_to_other_prompts`; reports of what
            was cut are about the data's own answers.

    Raises:
        DataError: some cannot be used (and `skip` is off; all are in the message), nothing is left to learn from, or
            `mismatched` is asked for and there is no other prompt.
    """
    quiet(tokenizer)
    uncounted = Truncation(truncation.max_length)

    def encode(item: _Paired, name: str) -> list[LabelledRow]:
        record = item.record
        answer = truncation.fit(Row(*encode_answer(tokenizer, record.prompt, record.answer), name))
        if item.other is None:
            return [LabelledRow(answer, record.good)]
        row = Row(*encode_answer(tokenizer, record.prompt, item.other), f"{name} (with the answer to another prompt)")
        return [LabelledRow(answer, record.good, uncounted.fit(row))]

    def paired(records: Sequence[Labelled], more: Sequence[Labelled]) -> list[_Paired]:
        if not mismatched or not records:
            return [_Paired(r, None) for r in records]
        return [_Paired(r, o) for r, o in zip(records, answers_to_other_prompts(records, more), strict=True)]

    parts = [paired(train, ()), paired(held_out, train)]
    found = settled(parts, encode, "labelled answer", truncation, skip)
    return found[0], found[1]


def labelled_batch(rows: Sequence[LabelledRow]) -> LabelledBatch:
    """Labelled answers as one flat batch."""
    flat = [(unit, row) for unit, labelled in enumerate(rows) for row in labelled.rows]
    tokens, masks, names = zip(*((row.tokens, row.mask, row.name) for _, row in flat), strict=True)
    batch = LabelledBatch.of(tokens, masks, names, unit=[unit for unit, _ in flat])
    return batch.with_units(desirable=torch.tensor([float(row.good) for row in rows]))
