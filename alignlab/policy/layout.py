"""How a flat batch is laid out in rows for a model: in padded buckets or one long row, equal prompts computed once.

A causal model's state at a token depends on the tokens before it alone. So sequences may be padded on the right without
a mask; and sequences with the same prompt may share it: one row holds the prompt and then each answer, and a mask keeps
the answers from seeing each other. A row may also hold unrelated texts, one after the other, in place of padding; of
its attention, most is computed and thrown away. Which of these takes least arithmetic is worked out beforehand. Where
attention skips what its mask hides (`Sharing.flat`), everything stands in one row.

Left out: tokens that two answers have in common after their prompt (they are few).

Axes: T tokens of the batch, R rows, L columns, d width.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.batch import Batch

TOKENS_PER_CALL = 256
"""Fixed cost of one more forward pass, in tokens; measured for models of a few layers on a CPU."""
FLAT_MULTIPLE = 512
"""A flat row is padded to a multiple of this many columns: few lengths, so few compilations, and memory is reused."""
_MOST_CALLS = 6
_LITTLE = 1.03
"""Padding that is cheaper than a mask: columns of plain rows over those of a flat one."""
_LEAST_SHARED = 8
"""Tokens of the shortest prompt that is shared."""
_WIDEST_MASK = 2**22
"""Entries of the largest mask that keeps unrelated texts apart; some implementations hold one for each head."""


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
class Sharing:
    """Whether and where sharing a row pays.

    Args:
        longest: longest sequence that may share a row with another, in tokens; 0 shares none.
        attention: arithmetic of attending to one column, over all other arithmetic of a token.
        widest: columns of the widest row that is shared: layers may hide columns by a mask of their own, too.
        turn: longest sequence of those that the model places by other angles than longer ones (LongRoPE); whichever is
            the longest decides for a whole call, so that no call has both.
        flat: attention skips what its mask hides, so that everything may stand in one row.
    """

    longest: int = 0
    attention: float = 0.0
    widest: int = 2**31
    turn: int = 2**31
    flat: bool = False

    def cost(self, columns: "int | np.ndarray", shared: bool = False) -> "float | np.ndarray":
        """Arithmetic of a row, in tokens; without a mask half of the attention is skipped."""
        return columns * (1 + self.attention * columns * (1.0 if shared else 0.5))


@dataclass(frozen=True)
class _Text:
    """A prompt and the answers that share it; a sequence that shares none is all answer.

    Args:
        prompt: tokens of the prompt.
        members: numbers of the sequences.
        columns: tokens in all.
    """

    prompt: int
    members: Sequence[int]
    columns: int


_Call: TypeAlias = Sequence[Sequence[_Text]]
"""Rows of one forward pass, each with its texts."""


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
    for call in _calls(batch, lengths, starts, sharing):
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
    return len(_calls(batch, lengths, lengths.cumsum() - lengths, sharing))


def _stretches(row: Sequence[_Text], lengths: np.ndarray, starts: np.ndarray) -> Iterator[_Stretch]:
    """The prompts and answers of a row, in order."""
    column = 0
    for number, text in enumerate(row):
        yield _Stretch(column, int(starts[text.members[0]]), 0, text.prompt, number, 0)
        column += text.prompt
        for answer, member in enumerate(text.members, start=1):
            own = int(lengths[member]) - text.prompt
            yield _Stretch(column, int(starts[member]) + text.prompt, text.prompt, own, number, answer)
            column += own


def _find(source: np.ndarray, row: Sequence[_Text], lengths: np.ndarray, starts: np.ndarray, first: int) -> None:
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


# ---- which rows, in which calls --------------------------------------------------------------------------------------
def _calls(batch: Batch, lengths: np.ndarray, starts: np.ndarray, sharing: Sharing) -> list[_Call]:
    sides = [(lengths <= sharing.turn).nonzero()[0].tolist(), (lengths > sharing.turn).nonzero()[0].tolist()]
    return [call for members in sides if members for call in _calls_of(members, batch, lengths, starts, sharing)]


def _calls_of(
    members: Sequence[int], batch: Batch, lengths: np.ndarray, starts: np.ndarray, sharing: Sharing
) -> list[_Call]:
    alone = [_Text(0, [member], int(lengths[member])) for member in members]
    longest = max(text.columns for text in alone)
    if longest > sharing.longest or len(alone) == 1:
        return _bucketed(alone, sharing)[0]
    plain, cost = _bucketed(alone, sharing)
    families = _families(members, batch, lengths, starts)
    if sharing.flat:
        padded = len(alone) * longest
        return plain if padded <= _LITTLE * sum(text.columns for text in families) else [[families]]
    rows = [row for family in families for row in _split(family, lengths, sharing)]
    options = [(plain, cost)]
    single, several = ([r for r in rows if (len(r.members) > 1) == many] for many in (False, True))
    if several:
        mixed = [_bucketed(part, sharing) for part in (single, several) if part]
        options.append(([call for calls, _ in mixed for call in calls], sum(cost for _, cost in mixed)))
    if packed := _packed(rows, sharing):
        options.append(packed)
    return min(options, key=lambda option: option[1])[0]


def _families(members: Sequence[int], batch: Batch, lengths: np.ndarray, starts: np.ndarray) -> list[_Text]:
    """Sequences with equal prompts (the tokens before the first that is scored), together; others alone."""
    tokens, scored = batch.tokens.cpu().numpy(), batch.response_mask.cpu().numpy()
    found: dict[bytes | int, list[int]] = {}
    prompts: dict[int, int] = {}
    for number in members:
        start = int(starts[number])
        mask = scored[start : start + int(lengths[number])]
        prompts[number] = prompt = int(mask.argmax()) if mask.any() else 0
        key = tokens[start : start + prompt].tobytes() if prompt >= _LEAST_SHARED else number
        found.setdefault(key, []).append(number)
    families = [(prompts[those[0]] if len(those) > 1 else 0, those) for those in found.values()]
    return [_text(prompt, those, lengths) for prompt, those in families]


def _text(prompt: int, members: Sequence[int], lengths: np.ndarray) -> _Text:
    return _Text(prompt, members, prompt + sum(int(lengths[m]) - prompt for m in members))


def _split(family: _Text, lengths: np.ndarray, sharing: Sharing) -> list[_Text]:
    """The family in rows of as many members as cost least: attention grows with the square of a row."""
    members = sorted(family.members, key=lambda m: (int(lengths[m]), m))
    best, least = [family], float("inf")
    each = len(members)
    while each:
        parts = [members[i : i + each] for i in range(0, len(members), each)]
        rows = [_text(family.prompt if len(part) > 1 else 0, part, lengths) for part in parts]
        cost = sum(float(sharing.cost(row.columns, len(row.members) > 1)) for row in rows)
        fits = all(row.columns <= sharing.widest for row in rows if len(row.members) > 1)
        if fits and cost < least:
            best, least = rows, cost
        each = 0 if each == 1 else (each + 1) // 2
    return best


def _packed(texts: Sequence[_Text], sharing: Sharing) -> tuple[list[_Call], float] | None:
    """Texts one after the other, in one call of as many rows as cost least; nothing if they would be too wide."""
    order = sorted(range(len(texts)), key=lambda i: (-texts[i].columns, i))
    best, least, count = None, float("inf"), 1
    while count < len(texts):
        rows: list[list[_Text]] = [[] for _ in range(count)]
        filled = [(0, number) for number in range(count)]
        for text in (texts[i] for i in order):  # the longest first, each into the row that has most space
            used, number = heapq.heappop(filled)
            rows[number].append(text)
            heapq.heappush(filled, (used + text.columns, number))
        widest = max(used for used, _ in filled)
        cost = count * float(sharing.cost(widest, shared=True)) + TOKENS_PER_CALL
        if cost < least and widest <= sharing.widest and count * widest**2 <= _WIDEST_MASK:
            best, least = rows, cost
        count += max(1, count // 4)
    return ([best], least) if best else None


def _bucketed(rows: Sequence[_Text], sharing: Sharing) -> tuple[list[_Call], float]:
    """Rows in calls of similar length, and their cost in tokens."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].columns, i))
    columns = np.array([rows[i].columns for i in order])
    each = np.asarray(sharing.cost(columns, len(rows[0].members) > 1), dtype=float)
    edges, cost = _cuts(each)
    return [[[rows[i]] for i in order[a:b]] for a, b in itertools.pairwise(edges)], cost


def _cuts(each: np.ndarray) -> tuple[list[int], float]:
    """Where to cut rows, in order of their cost, into at most six calls that cost least together.

    Every row of a call costs what the last one does, and each call `TOKENS_PER_CALL` on top.

    Returns:
        The edges, from 0 to the number of rows, and the cost.
    """
    n = len(each)
    count = np.arange(n + 1)
    # cost[i, j] of one call of the rows i .. j-1
    cost = np.full((n + 1, n + 1), np.inf)
    for end in range(1, n + 1):
        cost[:end, end] = (end - count[:end]) * each[end - 1] + TOKENS_PER_CALL
    best, came = [cost[0]], []
    for _ in range(min(_MOST_CALLS, n) - 1):
        total = best[-1][:, None] + cost
        came.append(total.argmin(0))
        best.append(total.min(0))
    calls = int(np.argmin([b[n] for b in best]))
    edges = [n]
    for step in reversed(came[:calls]):
        edges.append(int(step[edges[-1]]))
    return [0, *reversed(edges)], float(best[calls][n])
