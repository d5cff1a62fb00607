"""How a flat batch is laid out in rows for a model: in padded buckets or one long row, equal prompts computed once.

A causal model's state at a token depends on the tokens before it alone. So sequences may be padded on the right without
a mask; and sequences with the same prompt may share it: one row holds the prompt and then each answer, and a mask keeps
the answers from seeing each other. A row may also hold unrelated texts, one after the other, in place of padding; of
its attention, most is computed and thrown away. Which of these takes least arithmetic is worked out beforehand
(`alignlab.policy.packing`). Where attention skips what its mask hides (`Sharing.flat`), everything stands in one row.

Left out: tokens that two answers have in common after their prompt (they are few).

Axes: T tokens of the batch, R rows, L columns, d width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.batch import Batch
from alignlab.policy.packing import Sharing, Text, calls_of

FLAT_MULTIPLE = 512
"""A flat row is padded to a multiple of this many columns: few lengths, so few compilations, and memory is reused."""


@dataclass(frozen=True)
class Mask:
    """Columns that each column of a row attends to.

    Args:
        text: number of the text that each column belongs to; -1 in the padding.
        answer: 0 in the text's prompt, and from 1 on the number of the answer.
    """

    text: Int[Tensor, "R L"]
    answer: Int[Tensor, "R L"]

    def sees(self, row: Tensor | int, query: Tensor, key: Tensor) -> Bool[Tensor, "..."]:
        """Whether a column attends to another: one up to itself, of its own text, in the prompt or its own answer."""
        own = self.text[row, query] == self.text[row, key]
        answered = (self.answer[row, key] == 0) | (self.answer[row, key] == self.answer[row, query])
        return (query >= key) & own & answered

    def dense(self) -> Bool[Tensor, "R 1 L L"]:
        """The whole mask."""
        rows, columns = self.text.shape
        row = torch.arange(rows, device=self.text.device)[:, None, None]
        column = torch.arange(columns, device=self.text.device)
        return self.sees(row, column[:, None], column[None, :])[:, None]


@dataclass(frozen=True)
class Rows:
    """The rows of one forward pass.

    Args:
        tokens: padded on the right by token 0.
        position: of each token in its own sequence; None where it is the column.
        mask: None where each column attends to all up to itself.
        flat: there is one row, of many texts.
    """

    tokens: Int[Tensor, "R L"]
    position: Int[Tensor, "R L"] | None = None
    mask: Mask | None = None
    flat: bool = False


Forward: TypeAlias = Callable[[Rows], Float[Tensor, "R L d"]]


@dataclass(frozen=True)
class _Stretch:
    """Consecutive columns of a row that hold consecutive tokens of the batch.

    Args:
        column: the first of them.
        token: the first of them, of the batch.
        position: of that token in its sequence.
        count: of tokens.
        text: number of the text in the row.
        answer: 0 in a prompt.
    """

    column: int
    token: int
    position: int
    count: int
    text: int
    answer: int


def hidden_states(batch: Batch, forward: Forward, sharing: Sharing) -> Float[Tensor, "T d"]:
    """A model's state at every token of a batch.

    Args:
        batch: flat, with one token at least.
        forward: runs the model on some rows.
        sharing: where rows are shared.
    """
    lengths = batch.lengths().cpu().numpy()
    starts = lengths.cumsum() - lengths
    source = np.empty(batch.num_tokens, dtype=np.int64)
    states, before = [], 0
    for call in calls_of(batch, lengths, starts, sharing):
        columns = max(sum(text.columns for text in row) for row in call)
        masked = any(len(row) > 1 or len(row[0].members) > 1 for row in call)
        columns += -columns % FLAT_MULTIPLE if masked and sharing.flat else 0
        place, position = np.zeros((2, len(call), columns), dtype=np.int64)
        which = np.full((2, len(call), columns), -1, dtype=np.int64)
        for number, row in enumerate(call):
            for part in _stretches(row, lengths, starts):
                at = slice(part.column, part.column + part.count)
                place[number, at] = np.arange(part.token, part.token + part.count)
                position[number, at] = np.arange(part.position, part.position + part.count)
                which[:, number, at] = [[part.text], [part.answer]]
            _find(source, row, lengths, starts, before + number * columns)
        states.append(forward(_rows(batch, place, position, which, masked, sharing.flat)).flatten(0, 1))
        before += len(call) * columns
    found = states[0] if len(states) == 1 else torch.cat(states)
    return found.index_select(0, torch.from_numpy(source).to(found.device))


def calls(batch: Batch, sharing: Sharing) -> int:
    """Forward passes that `hidden_states` takes."""
    lengths = batch.lengths().cpu().numpy()
    return len(calls_of(batch, lengths, lengths.cumsum() - lengths, sharing))


def _stretches(row: Sequence[Text], lengths: np.ndarray, starts: np.ndarray) -> Iterator[_Stretch]:
    """The prompts and answers of a row, in order."""
    column = 0
    for number, text in enumerate(row):
        yield _Stretch(column, int(starts[text.members[0]]), 0, text.prompt, number, 0)
        column += text.prompt
        for answer, member in enumerate(text.members, start=1):
            own = int(lengths[member]) - text.prompt
            yield _Stretch(column, int(starts[member]) + text.prompt, text.prompt, own, number, answer)
            column += own


def _find(source: np.ndarray, row: Sequence[Text], lengths: np.ndarray, starts: np.ndarray, first: int) -> None:
    """Write down where each token of a row's sequences is found, if the row's first column is found at `first`."""
    column = first
    for text in row:
        asked, column = column, column + text.prompt
        for member in text.members:
            start, own, end = starts[member], starts[member] + text.prompt, starts[member] + lengths[member]
            source[start:own] = np.arange(asked, asked + text.prompt)
            source[own:end] = np.arange(column, column + end - own)
            column += end - own


def _rows(batch: Batch, place: np.ndarray, position: np.ndarray, which: np.ndarray, masked: bool, flat: bool) -> Rows:
    device = batch.tokens.device
    text, answer = torch.from_numpy(which).to(device)
    # Padding is never seen by a valid token, so any token may stand in it.
    tokens = batch.tokens[torch.from_numpy(place).to(device)].masked_fill(text < 0, 0)
    if not masked:
        return Rows(tokens)
    return Rows(tokens, torch.from_numpy(position).to(device), Mask(text, answer), flat)
