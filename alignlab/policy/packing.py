"""The choice of rows for a batch, and of the rows of each forward pass: whatever takes least arithmetic.

Equal prompts are computed once, texts of uneven length stand one after the other, or rows of similar length are padded
(`alignlab.policy.layout` puts them there). What each costs is worked out in tokens.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from alignlab.batch import Batch

TOKENS_PER_CALL = 256
"""Fixed cost of one more forward pass, in tokens; measured for models of a few layers on a CPU."""
_MOST_CALLS = 6
_LITTLE = 1.03
"""Padding that is cheaper than a mask: columns of plain rows over those of a flat one."""
_LEAST_SHARED = 8
"""Tokens of the shortest prompt that is shared."""
_WIDEST_MASK = 2**22
"""Entries of the largest mask that keeps unrelated texts apart; some implementations hold one for each head."""


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
class Text:
    """A prompt and the answers that share it; a sequence that shares none is all answer.

    Args:
        prompt: tokens of the prompt.
        members: numbers of the sequences.
        columns: tokens in all.
    """

    prompt: int
    members: Sequence[int]
    columns: int


Call: TypeAlias = Sequence[Sequence[Text]]
"""Rows of one forward pass, each with its texts."""


def calls_of(batch: Batch, lengths: np.ndarray, starts: np.ndarray, sharing: Sharing) -> list[Call]:
    sides = [(lengths <= sharing.turn).nonzero()[0].tolist(), (lengths > sharing.turn).nonzero()[0].tolist()]
    return [call for members in sides if members for call in _cheapest(members, batch, lengths, starts, sharing)]


def _cheapest(
    members: Sequence[int], batch: Batch, lengths: np.ndarray, starts: np.ndarray, sharing: Sharing
) -> list[Call]:
    alone = [Text(0, [member], int(lengths[member])) for member in members]
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


def _families(members: Sequence[int], batch: Batch, lengths: np.ndarray, starts: np.ndarray) -> list[Text]:
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


def _text(prompt: int, members: Sequence[int], lengths: np.ndarray) -> Text:
    return Text(prompt, members, prompt + sum(int(lengths[m]) - prompt for m in members))


def _split(family: Text, lengths: np.ndarray, sharing: Sharing) -> list[Text]:
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


def _packed(texts: Sequence[Text], sharing: Sharing) -> tuple[list[Call], float] | None:
    """Texts one after the other, in one call of as many rows as cost least; nothing if they would be too wide."""
    order = sorted(range(len(texts)), key=lambda i: (-texts[i].columns, i))
    best, least, count = None, float("inf"), 1
    while count < len(texts):
        rows: list[list[Text]] = [[] for _ in range(count)]
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


def _bucketed(rows: Sequence[Text], sharing: Sharing) -> tuple[list[Call], float]:
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
