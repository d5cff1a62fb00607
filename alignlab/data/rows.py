"""Tokenised records, and the order in which training visits them.

A row is a list of tokens with a mask of those that are scored. Which rows make up optimizer step k is a pure
function of (seed, k): a run that is resumed at step k needs no other state to see the right data.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

from alignlab.batch import PreferenceBatch, TokenBatch
from alignlab.data.chat import encode_answer, encode_document
from alignlab.data.records import Comparison, Document, Example
from alignlab.data.truncation import Encode, Row, Truncation, collected, settled
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import ConfigError
from alignlab.seed import fold_in

__all__ = [
    "Encode",
    "Row",
    "Truncation",
    "check_max_length",
    "collected",
    "comparison_encoder",
    "comparison_parts",
    "comparison_rows",
    "document_rows",
    "example_encoder",
    "example_parts",
    "example_rows",
    "order_at",
    "permutation",
    "portions",
    "preference_batch",
    "quiet",
    "resolve_max_length",
    "settled",
    "token_batch",
]

R = TypeVar("R")


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


def document_rows(tokenizer: PreTrainedTokenizerBase, documents: Iterable[Document], max_length: int) -> list[Row]:
    """BOS, text, EOS, cut into windows of at most `max_length` tokens in which every token is scored exactly once.

    A later window begins with the last token of the one before it, as context only.
    """
    quiet(tokenizer)
    rows = []
    for number, document in enumerate(documents):
        tokens = encode_document(tokenizer, document.text)
        for start in range(0, max(1, len(tokens) - 1), max_length - 1):
            window = tokens[start : start + max_length]
            rows.append(Row(window, [False] + [True] * (len(window) - 1), document.source or f"document {number}"))
    return rows


# ---- records to rows -------------------------------------------------------------------------------------------------
# A stage has a part to learn from and a held-out one. `example_parts` and `comparison_parts` read both, so that what
# cannot be used in either stands in one message; `example_rows` and `comparison_rows` read one part.
def example_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], truncation: Truncation, skip: bool = False
) -> list[Row]:
    """Answered instructions, the answer and its stop token scored.

    Args:
        tokenizer: of the policy.
        examples: one part.
        truncation: cuts and counts; the same one for all parts.
        skip: leave out what cannot be used.

    Raises:
        DataError: some cannot be used (and `skip` is off; all are in the message), or nothing is left to learn from.
    """
    return settled([examples], example_encoder(tokenizer, truncation), "example", truncation, skip)[0]


def example_parts(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Example],
    held_out: Sequence[Example],
    truncation: Truncation,
    skip: bool = False,
) -> tuple[list[Row], list[Row]]:
    """`example_rows` of both parts; every problem of both is in one message."""
    found = settled([train, held_out], example_encoder(tokenizer, truncation), "example", truncation, skip)
    return found[0], found[1]


def comparison_rows(
    tokenizer: PreTrainedTokenizerBase, comparisons: Sequence[Comparison], truncation: Truncation, skip: bool = False
) -> list[tuple[Row, Row]]:
    """Chosen and rejected answers with their prompt, the answers and stop tokens scored.

    Pairs whose answers are the same tokens (once cut) are left out and counted. Arguments and errors as `example_rows`.
    """
    return settled([comparisons], comparison_encoder(tokenizer, truncation), "comparison", truncation, skip)[0]


def comparison_parts(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Comparison],
    held_out: Sequence[Comparison],
    truncation: Truncation,
    skip: bool = False,
) -> tuple[list[tuple[Row, Row]], list[tuple[Row, Row]]]:
    """`comparison_rows` of both parts; every problem of both is in one message."""
    found = settled([train, held_out], comparison_encoder(tokenizer, truncation), "comparison", truncation, skip)
    return found[0], found[1]


def example_encoder(tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> Encode[Example, Row]:
    """Encodes one answered instruction."""
    quiet(tokenizer)

    def encode(example: Example, name: str) -> Row:
        return truncation.fit(Row(*encode_answer(tokenizer, example.prompt, example.answer), name, example.scores))

    return encode


def comparison_encoder(
    tokenizer: PreTrainedTokenizerBase, truncation: Truncation
) -> Encode[Comparison, tuple[Row, Row]]:
    """Encodes one pair; None where both answers are the same tokens."""
    quiet(tokenizer)

    def encode(pair: Comparison, name: str) -> tuple[Row, Row] | None:
        answers = (("chosen", pair.chosen), ("rejected", pair.rejected))
        whole = [
            Row(*encode_answer(tokenizer, pair.prompt, text), f"{name} ({side})", pair.notes) for side, text in answers
        ]
        before = truncation.cut
        chosen, rejected = truncation.fit_all(whole)
        if list(chosen.tokens) != list(rejected.tokens):
            return chosen, rejected
        truncation.cut = before
        truncation.identical.add(name, f"chosen and rejected are the same within {truncation.max_length} tokens")
        return None

    return encode


def quiet(tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep transformers from warning that a sequence is longer than the model's context: here it is cut."""
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True


def token_batch(rows: Sequence[Row]) -> TokenBatch:
    """Rows as one flat batch."""
    return TokenBatch.of([r.tokens for r in rows], [r.mask for r in rows], [r.name for r in rows])


def preference_batch(pairs: Sequence[tuple[Row, Row]]) -> PreferenceBatch:
    """(chosen, rejected) rows as one flat batch."""
    rows = [row for pair in pairs for row in pair]
    return PreferenceBatch.of([r.tokens for r in rows], [r.mask for r in rows], [r.name for r in rows])


def portions(items: Sequence[R], size: int) -> list[Sequence[R]]:
    """The items in order, `size` at a time; the last portion may be smaller."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def order_at(step: int, size: int, batch_size: int, seed: int) -> list[int]:
    """Indices of the records of optimizer step `step`, of `size`: shuffled again each epoch, none twice in an epoch."""
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
