"""Tokenised records, and the order in which training visits them.

A row is a list of tokens with a mask of those that are scored. Which rows make up optimizer step k is a pure
function of (seed, k): a run that is resumed at step k needs no other state to see the right data.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from alignlab.batch import LabelledBatch, PreferenceBatch, TokenBatch
from alignlab.data.chat import encode_answer, encode_document
from alignlab.data.records import Comparison, Document, Example, Labelled
from alignlab.errors import ConfigError, DataError
from alignlab.seed import fold_in

R = TypeVar("R")


@dataclass(frozen=True)
class Row:
    """One tokenised sequence; `name` says which record it was."""

    tokens: Sequence[int]
    mask: Sequence[bool]
    name: str = ""


def check_max_length(owner: str, max_length: int | None) -> None:
    """Refuse a longest sequence that has no room for a token and one before it; None is the model's context.

    Raises:
        ValueError: names `owner`.
    """
    if max_length is not None and max_length < 2:
        raise ValueError(f"{owner}: max_length must be >= 2 or null, got {max_length}; it counts tokens")


def resolve_max_length(owner: str, max_length: int | None, context: int) -> int:
    """The longest sequence in tokens: what was asked for, or the model's context.

    Raises:
        ConfigError: the model's context is shorter than what was asked for.
    """
    if max_length is not None and max_length > context:
        raise ConfigError(f"{owner}: max_length must be at most the model's context of {context}, got {max_length}")
    return max_length or context


@dataclass
class Truncation:
    """Counts what did not fit, so that nothing is cut without a word."""

    max_length: int
    cut: int = 0
    dropped: int = 0
    records: int = 0

    def fit(self, row: Row) -> Row:
        """The row, cut at its end to `max_length` tokens; an error where no scored token would be left."""
        if len(row.tokens) <= self.max_length:
            return row
        short = Row(row.tokens[: self.max_length], row.mask[: self.max_length], row.name)
        if not any(short.mask):
            raise DataError(
                f"{row.name or 'record'}: the whole answer is cut away: {list(row.mask).index(True)} tokens come "
                f"before it and max_length is {self.max_length}; raise max_length (or the model's context), "
                f"shorten the prompt, or leave such records out: on_bad_record=skip (of the stage, or of data)"
            )
        self.cut += 1
        return short

    def describe(self, what: str) -> str:
        """One line for the reader, empty when everything fitted."""
        parts = [f"{self.cut} cut short at {self.max_length} tokens"] if self.cut else []
        why = "the answer was wholly cut away, or the prompt held control tokens"
        parts += [f"{self.dropped} skipped ({why})"] if self.dropped else []
        return f"of {self.records} {what}: {', '.join(parts)}" if parts else ""


def document_rows(tokenizer: PreTrainedTokenizerBase, documents: Iterable[Document], max_length: int) -> list[Row]:
    """BOS, text, EOS, cut into windows of at most `max_length` tokens in which every token is scored exactly once.

    A later window begins with the last token of the one before it, as context only.
    """
    rows = []
    for number, document in enumerate(documents):
        tokens = encode_document(tokenizer, document.text)
        for start in range(0, max(1, len(tokens) - 1), max_length - 1):
            window = tokens[start : start + max_length]
            rows.append(Row(window, [False] + [True] * (len(window) - 1), document.source or f"document {number}"))
    return rows


def example_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], truncation: Truncation, skip: bool = False
) -> list[Row]:
    """Answered instructions, the answer and its stop token scored."""

    def encode(example: Example, name: str) -> Row:
        return truncation.fit(Row(*encode_answer(tokenizer, example.prompt, example.answer), name))

    return _all(examples, encode, "example", truncation, skip)


def comparison_rows(
    tokenizer: PreTrainedTokenizerBase, comparisons: Sequence[Comparison], truncation: Truncation, skip: bool = False
) -> list[tuple[Row, Row]]:
    """Chosen and rejected answers with their prompt, the answers and stop tokens scored."""

    def encode(pair: Comparison, name: str) -> tuple[Row, Row]:
        chosen = Row(*encode_answer(tokenizer, pair.prompt, pair.chosen), f"{name} (chosen)")
        rejected = Row(*encode_answer(tokenizer, pair.prompt, pair.rejected), f"{name} (rejected)")
        return truncation.fit(chosen), truncation.fit(rejected)

    return _all(comparisons, encode, "comparison", truncation, skip)


def token_batch(rows: Sequence[Row]) -> TokenBatch:
    """Rows as one flat batch."""
    return TokenBatch.of([r.tokens for r in rows], [r.mask for r in rows], [r.name for r in rows])


def preference_batch(pairs: Sequence[tuple[Row, Row]]) -> PreferenceBatch:
    """(chosen, rejected) rows as one flat batch."""
    rows = [row for pair in pairs for row in pair]
    return PreferenceBatch.of([r.tokens for r in rows], [r.mask for r in rows], [r.name for r in rows])


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


def labelled_rows(
    tokenizer: PreTrainedTokenizerBase,
    labelled: Sequence[Labelled],
    truncation: Truncation,
    skip: bool = False,
    mismatched: bool = False,
) -> list[LabelledRow]:
    """Labelled answers, the answer and its stop token scored.

    Args:
        mismatched: also pair each prompt with the answer to the next different one, as KTO's baseline asks for.

    Raises:
        DataError: `mismatched` is asked for and all answers are to one prompt.
    """
    others: list[str | None] = list(_answers_to_others(labelled)) if mismatched else [None] * len(labelled)

    def encode(item: tuple[Labelled, str | None], name: str) -> LabelledRow:
        record, other = item
        answer = truncation.fit(Row(*encode_answer(tokenizer, record.prompt, record.answer), name))
        if other is None:
            return LabelledRow(answer, record.good)
        row = Row(*encode_answer(tokenizer, record.prompt, other), f"{name} (with the answer to another prompt)")
        return LabelledRow(answer, record.good, truncation.fit(row))

    items = list(zip(labelled, others, strict=True))
    return _all(items, encode, "labelled answer", truncation, skip, source=lambda item: item[0].source)


def _answers_to_others(labelled: Sequence[Labelled]) -> list[str]:
    """For each record, the answer of the next one (in a circle) that has another prompt."""
    found: list[str] = []
    for i, record in enumerate(labelled):
        later = (labelled[(i + j) % len(labelled)] for j in range(1, len(labelled)))
        other = next((r.answer for r in later if r.prompt != record.prompt), None)
        if other is None:
            raise DataError(
                "all labelled answers are to one prompt, so there is no answer to another one to take a baseline from; "
                "add other prompts, or choose an objective without a baseline"
            )
        found.append(other)
    return found


def labelled_batch(rows: Sequence[LabelledRow]) -> LabelledBatch:
    """Labelled answers as one flat batch."""
    flat = [(unit, row) for unit, labelled in enumerate(rows) for row in labelled.rows]
    tokens, masks, names = zip(*((row.tokens, row.mask, row.name) for _, row in flat), strict=True)
    batch = LabelledBatch.of(tokens, masks, names, unit=[unit for unit, _ in flat])
    return batch.with_units(desirable=torch.tensor([float(row.good) for row in rows]))


def portions(items: Sequence[R], size: int) -> list[Sequence[R]]:
    """The items in order, `size` at a time; the last portion may be smaller."""
    return [items[i : i + size] for i in range(0, len(items), size)]


T = TypeVar("T")


def _all(
    records: Sequence[T],
    encode: Callable[[T, str], R],
    what: str,
    truncation: Truncation,
    skip: bool,
    source: Callable[[Any], str] = lambda record: record.source,
) -> list[R]:
    rows = []
    truncation.records += len(records)
    for number, record in enumerate(records):
        try:
            rows.append(encode(record, source(record) or f"{what} {number}"))
        except DataError:
            if not skip:
                raise
            truncation.dropped += 1
    if not rows:
        raise DataError(f"no {what} is left of {len(records)}; every answer was cut away or there was none")
    return rows


def order_at(step: int, size: int, batch_size: int, seed: int) -> list[int]:
    """Which of `size` records make up optimizer step `step`: shuffled anew each epoch, none twice in an epoch."""
    if size <= 0 or batch_size <= 0:
        raise ValueError(f"order_at: size and batch_size must be > 0, got {size} and {batch_size}")
    picked: list[int] = []
    at = step * batch_size
    while len(picked) < batch_size:
        epoch, offset = divmod(at + len(picked), size)
        shuffled = permutation(size, seed, epoch)
        picked += shuffled[offset : offset + batch_size - len(picked)]
    return picked


_permutations: dict[tuple[int, int, int], list[int]] = {}


def permutation(size: int, seed: int, epoch: int) -> list[int]:
    """A shuffle of 0 .. size-1 that depends on (seed, epoch) alone; the last few are remembered."""
    key = (size, seed, epoch)
    if key not in _permutations:
        while len(_permutations) >= 8:
            _permutations.pop(next(iter(_permutations)))
        generator = torch.Generator().manual_seed(fold_in(seed, epoch))
        _permutations[key] = torch.randperm(size, generator=generator).tolist()
    return _permutations[key]
