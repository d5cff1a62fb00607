"""How a flat batch is laid out in rows for a model: in length buckets, and with equal prompts computed once.

A causal model's state at a token depends on the tokens before it alone. So sequences may be padded on the right without
a mask; and sequences with the same prompt may share it: one row holds the prompt and then each answer, and a mask keeps
the answers from seeing each other. Which of the two takes less arithmetic is worked out beforehand.

Left out: tokens that two answers have in common after their prompt (they are few), and rows of unrelated texts.

Axes: T tokens of the batch, R rows, L columns, d width.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.batch import Batch

TOKENS_PER_CALL = 256
"""Fixed cost of one more forward pass, in tokens; measured for models of a few layers on a CPU."""
_MOST_CALLS = 6
_LEAST_SHARED = 8
"""Tokens of the shortest prompt that is shared."""


@dataclass(frozen=True)
class Rows:
    """The rows of one forward pass.

    Args:
        tokens: padded on the right by token 0.
        position: of each token in its own sequence; None where it is the column.
        sees: whether a column (axis 2) attends to another (axis 3); None where it attends to all up to itself.
    """

    tokens: Int[Tensor, "R L"]
    position: Int[Tensor, "R L"] | None = None
    sees: Bool[Tensor, "R 1 L L"] | None = None


Forward: TypeAlias = Callable[[Rows], Float[Tensor, "R L d"]]


@dataclass(frozen=True)
class Sharing:
    """Whether and where sharing a prompt pays.

    Args:
        longest: longest sequence of which a prompt may be shared, in tokens; 0 shares none.
        attention: arithmetic of attending to one column, over all other arithmetic of a token.
    """

    longest: int = 0
    attention: float = 0.0

    def cost(self, columns: "int | np.ndarray", shared: bool = False) -> "float | np.ndarray":
        """Arithmetic of a row, in tokens; without a mask half of the attention is skipped."""
        return columns * (1 + self.attention * columns * (1.0 if shared else 0.5))


@dataclass(frozen=True)
class _Row:
    """A prompt and the answers that share it; a single sequence is all answer.

    Args:
        prompt: tokens of the prompt.
        members: numbers of the sequences.
        columns: tokens in all.
    """

    prompt: int
    members: Sequence[int]
    columns: int


def hidden_states(batch: Batch, forward: Forward, sharing: Sharing) -> Float[Tensor, "T d"]:
    """A model's state at every token of a batch.

    Args:
        batch: flat, with one token at least.
        forward: runs the model on some rows.
        sharing: where prompts are shared.
    """
    lengths = batch.lengths().cpu().numpy()
    starts = lengths.cumsum() - lengths
    source = np.empty(batch.num_tokens, dtype=np.int64)
    states, before = [], 0
    for rows in _calls(batch, lengths, starts, sharing):
        columns = max(row.columns for row in rows)
        place, position, answer = np.zeros((3, len(rows), columns), dtype=np.int64)
        answer -= 1  # the padding
        for number, row in enumerate(rows):
            for at, first, skipped, count, which in _stretches(row, lengths, starts):
                place[number, at : at + count] = np.arange(first + skipped, first + skipped + count)
                position[number, at : at + count] = np.arange(skipped, skipped + count)
                answer[number, at : at + count] = which
            for member, at in zip(row.members, _columns(row, lengths), strict=True):
                first, own, flat = starts[member], starts[member] + row.prompt, before + number * columns
                source[first:own] = np.arange(flat, flat + row.prompt)
                source[own : first + lengths[member]] = np.arange(flat + at, flat + at + lengths[member] - row.prompt)
        shared = any(len(row.members) > 1 for row in rows)
        states.append(forward(_rows(batch, place, position, answer, shared)).flatten(0, 1))
        before += len(rows) * columns
    found = states[0] if len(states) == 1 else torch.cat(states)
    return found.index_select(0, torch.from_numpy(source).to(found.device))


def _columns(row: _Row, lengths: np.ndarray) -> list[int]:
    """Column at which each member's own tokens begin."""
    sizes = [int(lengths[m]) - row.prompt for m in row.members]
    return [row.prompt + sum(sizes[:k]) for k in range(len(sizes))]


def _stretches(row: _Row, lengths: np.ndarray, starts: np.ndarray) -> list[tuple[int, int, int, int, int]]:
    """Column, first token of the sequence, tokens skipped, tokens, and number of the answer (0: the prompt)."""
    found = [(0, int(starts[row.members[0]]), 0, row.prompt, 0)]
    for which, (member, at) in enumerate(zip(row.members, _columns(row, lengths), strict=True), start=1):
        found.append((at, int(starts[member]), row.prompt, int(lengths[member]) - row.prompt, which))
    return found


def _rows(batch: Batch, place: np.ndarray, position: np.ndarray, answer: np.ndarray, shared: bool) -> Rows:
    device = batch.tokens.device
    # Padding is never seen by a valid token, so any token may stand in it.
    tokens = batch.tokens[torch.from_numpy(place).to(device)]
    padding = torch.from_numpy(answer < 0).to(device)
    tokens = tokens.masked_fill(padding, 0)
    if not shared:
        return Rows(tokens)
    which = torch.from_numpy(answer).to(device)
    up_to_itself = torch.ones(which.shape[1], which.shape[1], dtype=torch.bool, device=device).tril()
    sees = up_to_itself & ((which[:, None, :] == 0) | (which[:, None, :] == which[:, :, None]))
    return Rows(tokens, torch.from_numpy(position).to(device), sees[:, None])


# ---- which rows, in which calls --------------------------------------------------------------------------------------
def _calls(batch: Batch, lengths: np.ndarray, starts: np.ndarray, sharing: Sharing) -> list[list[_Row]]:
    alone = [_Row(0, [member], int(length)) for member, length in enumerate(lengths)]
    plain, cost = _bucketed(alone, sharing)
    if int(lengths.max()) > sharing.longest or len(alone) == 1:
        return plain
    rows = [row for family in _families(batch, lengths, starts) for row in _split(family, lengths, sharing)]
    single, several = ([r for r in rows if (len(r.members) > 1) == many] for many in (False, True))
    if not several:
        return plain
    mixed = [_bucketed(part, sharing) for part in (single, several) if part]
    return plain if cost <= sum(cost for _, cost in mixed) else [call for calls, _ in mixed for call in calls]


def _families(batch: Batch, lengths: np.ndarray, starts: np.ndarray) -> list[_Row]:
    """Sequences with equal prompts (the tokens before the first that is scored), together; others alone."""
    tokens, scored = batch.tokens.cpu().numpy(), batch.response_mask.cpu().numpy()
    found: dict[bytes | int, list[int]] = {}
    prompts = []
    for number, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        mask = scored[start : start + length]
        prompt = int(mask.argmax()) if mask.any() else 0
        prompts.append(prompt)
        key = tokens[start : start + prompt].tobytes() if prompt >= _LEAST_SHARED else number
        found.setdefault(key, []).append(number)
    families = [(prompts[members[0]] if len(members) > 1 else 0, members) for members in found.values()]
    return [_row(prompt, members, lengths) for prompt, members in families]


def _row(prompt: int, members: Sequence[int], lengths: np.ndarray) -> _Row:
    return _Row(prompt, members, prompt + sum(int(lengths[m]) - prompt for m in members))


def _split(family: _Row, lengths: np.ndarray, sharing: Sharing) -> list[_Row]:
    """The family in rows of as many members as cost least: attention grows with the square of a row."""
    members = sorted(family.members, key=lambda m: (int(lengths[m]), m))
    best, least = [family], float("inf")
    each = len(members)
    while each:
        parts = [members[i : i + each] for i in range(0, len(members), each)]
        rows = [_row(family.prompt if len(part) > 1 else 0, part, lengths) for part in parts]
        cost = sum(float(sharing.cost(row.columns, len(row.members) > 1)) for row in rows)
        if cost < least:
            best, least = rows, cost
        each = 0 if each == 1 else (each + 1) // 2
    return best


def _bucketed(rows: Sequence[_Row], sharing: Sharing) -> tuple[list[list[_Row]], float]:
    """Rows in calls of similar length, and their cost in tokens."""
    order = sorted(range(len(rows)), key=lambda i: (rows[i].columns, i))
    columns = np.array([rows[i].columns for i in order])
    each = np.asarray(sharing.cost(columns, len(rows[0].members) > 1), dtype=float)
    edges, cost = _cuts(each)
    return [[rows[i] for i in order[a:b]] for a, b in itertools.pairwise(edges)], cost


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
