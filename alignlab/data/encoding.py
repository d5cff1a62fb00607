"""Encoders: records to rows of tokens.

They hold a tokenizer and a `Truncation` and nothing else, so that worker processes can have copies of them; torch is
not imported on the way here, which would take most of a worker's start and memory.
"""

import abc
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from alignlab.data.chat import encode_answer, encode_document
from alignlab.data.records import Comparison, Document, Example
from alignlab.data.truncation import Row, Sourced, Truncation
from alignlab.data.types import PreTrainedTokenizerBase

T = TypeVar("T", bound=Sourced)
R = TypeVar("R")


def quiet(tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep transformers from warning that a sequence is longer than the model's context: here it is cut."""
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True


class Encoder(abc.ABC, Generic[T, R]):
    """Makes units (a row, a pair of rows) of one kind of record, the same ones in every process.

    Args:
        tokenizer: of the policy.
        truncation: cuts and counts.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("",)
    """Endings of the record's name in the rows of a unit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> None:
        quiet(tokenizer)
        self.tokenizer = tokenizer
        self.truncation = truncation

    @abc.abstractmethod
    def __call__(self, record: T, name: str) -> Sequence[R]:
        """The units of a record; none where it is left out.

        Raises:
            DataError: the record cannot be used.
        """

    @abc.abstractmethod
    def rows(self, unit: R) -> Sequence[Row]:
        """The rows of a unit, one for each of `NAMES`."""

    @abc.abstractmethod
    def unit(self, rows: Sequence[Row]) -> R:
        """The unit of some rows."""

    def afresh(self) -> "Encoder[T, R]":
        """The same with counts of its own, from zero."""
        return type(self)(self.tokenizer, Truncation(self.truncation.max_length))


class RowEncoder(Encoder[T, Row], Generic[T]):
    """Makes units of a single row."""

    def rows(self, unit: Row) -> Sequence[Row]:
        """The row."""
        return [unit]

    def unit(self, rows: Sequence[Row]) -> Row:
        """The row."""
        return rows[0]


class DocumentEncoder(RowEncoder[Document]):
    """BOS, text, EOS, cut into windows of at most `max_length` tokens in which every token is scored exactly once.

    A later window begins with the last token of the one before it, as context only.
    """

    def __call__(self, record: Document, name: str) -> Sequence[Row]:
        """The windows."""
        tokens, length = encode_document(self.tokenizer, record.text), self.truncation.max_length
        windows = [tokens[at : at + length] for at in range(0, max(1, len(tokens) - 1), length - 1)]
        return [Row(window, [False] + [True] * (len(window) - 1), name) for window in windows]


class ExampleEncoder(RowEncoder[Example]):
    """An answered instruction, the answer and its stop token scored."""

    def __call__(self, record: Example, name: str) -> Sequence[Row]:
        """The row."""
        row = Row(*encode_answer(self.tokenizer, record.prompt, record.answer), name, record.scores)
        return [self.truncation.fit(row)]


class ComparisonEncoder(Encoder[Comparison, tuple[Row, Row]]):
    """Chosen and rejected answer with their prompt; none where both answers are the same tokens once cut."""

    NAMES: ClassVar[tuple[str, ...]] = (" (chosen)", " (rejected)")

    def __call__(self, record: Comparison, name: str) -> Sequence[tuple[Row, Row]]:
        """The pair."""
        truncation, texts = self.truncation, (record.chosen, record.rejected)
        whole = [
            Row(*encode_answer(self.tokenizer, record.prompt, text), name + side, record.notes)
            for side, text in zip(self.NAMES, texts, strict=True)
        ]
        before = truncation.cut
        chosen, rejected = truncation.fit_all(whole)
        if list(chosen.tokens) != list(rejected.tokens):
            return [(chosen, rejected)]
        truncation.cut = before
        truncation.identical.add(name, f"chosen and rejected are the same within {truncation.max_length} tokens")
        return []

    def rows(self, unit: tuple[Row, Row]) -> Sequence[Row]:
        """Both rows."""
        return unit

    def unit(self, rows: Sequence[Row]) -> tuple[Row, Row]:
        """The pair."""
        chosen, rejected = rows
        return chosen, rejected
