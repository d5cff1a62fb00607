"""Tokenised records, and the order in which training visits them.

A row is a list of tokens with a mask of those that are scored. Which rows make up optimizer step k is a pure
function of (seed, k): a run that is resumed at step k needs no other state to see the right data.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from alignlab.batch import PreferenceBatch, TokenBatch
from alignlab.data.encoding import ComparisonEncoder, DocumentEncoder, ExampleEncoder, quiet
from alignlab.data.itemwise import Itemwise
from alignlab.data.records import Comparison, Document, Example
from alignlab.data.tokenised import StoredRows, collected, num_tokens, settled
from alignlab.data.truncation import REMEDY, Encode, Row, Truncation
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import ConfigError
from alignlab.seed import fold_in

__all__ = [
    "ComparisonEncoder",
    "Encode",
    "ExampleEncoder",
    "Lazy",
    "Row",
    "Truncation",
    "check_max_length",
    "collected",
    "comparison_parts",
    "comparison_rows",
    "document_rows",
    "example_parts",
    "example_rows",
    "few",
    "num_tokens",
    "order_at",
    "permutation",
    "portions",
    "preference_batch",
    "quiet",
    "resolve_max_length",
    "sample",
    "settled",
    "token_batch",
]

I = TypeVar("I")  # noqa: E741
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


def document_rows(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], max_length: int) -> Sequence[Row]:
    """Documents as windows of at most `max_length` tokens, see `DocumentEncoder`.

    Raises:
        DataError: the tokenizer has no way to write some of them; all are in the message.
    """
    truncation = Truncation(max_length)
    rows = collected(documents, DocumentEncoder(tokenizer, truncation), "document", truncation)
    truncation.problems.stop(REMEDY)
    return rows


# ---- records to rows -------------------------------------------------------------------------------------------------
# A stage has a part to learn from and a held-out one. `example_parts` and `comparison_parts` read both, so that what
# cannot be used in either stands in one message; `example_rows` and `comparison_rows` read one part.
def example_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], truncation: Truncation, skip: bool = False
) -> Sequence[Row]:
    """Answered instructions, the answer and its stop token scored.

    Args:
        tokenizer: of the policy.
        examples: one part.
        truncation: cuts and counts; the same one for all parts.
        skip: leave out what cannot be used.

    Raises:
        DataError: some cannot be used (and `skip` is off; all are in the message), or nothing is left to learn from.
    """
    return settled([examples], ExampleEncoder(tokenizer, truncation), "example", truncation, skip)[0]


def example_parts(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Example],
    held_out: Sequence[Example],
    truncation: Truncation,
    skip: bool = False,
) -> tuple[Sequence[Row], Sequence[Row]]:
    """`example_rows` of both parts; every problem of both is in one message."""
    found = settled([train, held_out], ExampleEncoder(tokenizer, truncation), "example", truncation, skip)
    return found[0], found[1]


def comparison_rows(
    tokenizer: PreTrainedTokenizerBase, comparisons: Sequence[Comparison], truncation: Truncation, skip: bool = False
) -> Sequence[tuple[Row, Row]]:
    """Chosen and rejected answers with their prompt, the answers and stop tokens scored.

    Pairs whose answers are the same tokens (once cut) are left out and counted. Arguments and errors as `example_rows`.
    """
    return settled([comparisons], ComparisonEncoder(tokenizer, truncation), "comparison", truncation, skip)[0]


def comparison_parts(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Comparison],
    held_out: Sequence[Comparison],
    truncation: Truncation,
    skip: bool = False,
) -> tuple[Sequence[tuple[Row, Row]], Sequence[tuple[Row, Row]]]:
    """`comparison_rows` of both parts; every problem of both is in one message."""
    found = settled([train, held_out], ComparisonEncoder(tokenizer, truncation), "comparison", truncation, skip)
    return found[0], found[1]


def token_batch(rows: Sequence[Row]) -> TokenBatch:
    """Rows as one flat batch."""
    return TokenBatch.of([r.tokens for r in rows], [r.mask for r in rows], [r.name for r in rows])


def preference_batch(pairs: Sequence[tuple[Row, Row]]) -> PreferenceBatch:
    """(chosen, rejected) rows as one flat batch."""
    rows = [row for pair in pairs for row in pair]
    return PreferenceBatch.of([r.tokens for r in rows], [r.mask for r in rows], [r.name for r in rows])


class Lazy(Itemwise[R]):
    """`make(item)` of each item, made whenever it is asked for: only what is in use is in memory.

    Args:
        items: what each is made of.
        make: gives the same for the same item.
    """

    def __init__(self, items: Sequence[I], make: Callable[[I], R]) -> None:
        self._items: Sequence[I] = items
        self._make: Callable[[I], R] = make

    def __len__(self) -> int:
        return len(self._items)

    def item(self, index: int) -> R:
        """Made now."""
        return self._make(self._items[index])


def sample(records: Sequence[I], size: Callable[[I], int], most: int = 2**25) -> Iterator[I]:
    """Records from which a vocabulary is made or measured, in their order: all, or a part of large data.

    Args:
        records: to draw from; only one of them is in memory at a time.
        size: characters of a record.
        most: characters of the sample.
    """
    drawn, room = array("q"), most
    for number in permutation(len(records), 0, 0):
        room -= size(records[number])
        if room < 0 and drawn:
            break
        drawn.append(number)
    yield from (records[number] for number in sorted(drawn))


def few(units: Sequence[R], say: Callable[[str], None], most: int = 4096) -> Sequence[R]:
    """The units to validate on: all, or of those of large data, which are tokenised into the store, at most `most`.

    A held-out part of hundreds of megabytes would take longer to validate on than to train; these are spaced evenly.
    """
    if not isinstance(units, StoredRows) or len(units) <= most:
        return units
    say(f"validates on {most} of {len(units)} held-out rows, spaced evenly")
    return Lazy([i * len(units) // most for i in range(most)], units.__getitem__)


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


_permutations: dict[tuple[int, int, int], Sequence[int]] = {}
_REMEMBERED = 2**22
"""Numbers in all permutations that are remembered; the latest is, whatever its size."""


def permutation(size: int, seed: int, epoch: int) -> Sequence[int]:
    """A shuffle of 0 .. size-1 that depends on (seed, epoch) alone, 8 bytes per number; the last few are remembered."""
    key = (size, seed, epoch)
    if key not in _permutations:
        while len(_permutations) >= 8 or (_permutations and size + sum(map(len, _permutations.values())) > _REMEMBERED):
            _permutations.pop(next(iter(_permutations)))
        generator = torch.Generator().manual_seed(fold_in(seed, epoch))
        _permutations[key] = array("q", torch.randperm(size, generator=generator).numpy().tobytes())
    return _permutations[key]
