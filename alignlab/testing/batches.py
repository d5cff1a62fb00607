"""Batches to check with: unequal lengths and weights, a hole in a mask, a temperature that is not 1.

Axes: T tokens, S sequences.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from alignlab.batch import Batch, PreferenceBatch

B = TypeVar("B", bound=Batch)

VOCABULARY = 24
"""Token ids are below this, so that the tiny policy can read them."""
TEMPERATURE = 0.7
_PROMPTS = (2, 3, 1, 4)
_ANSWERS = (3, 6, 2, 8, 1, 5, 4, 7, 3, 2)
_WEIGHTS = (1.0, 0.5, 2.0, 1.0, 1.5, 1.0, 0.25, 3.0)


def make_batch(kind: type[B], units: int, generator: torch.Generator, mismatched: bool = False) -> B:
    """A batch of so many units: sequences, or pairs of answers to one prompt.

    Args:
        mismatched: add the answer to another prompt to each unit of a `LabelledBatch`.
    """
    each = 2 if issubclass(kind, PreferenceBatch) or mismatched else 1
    return _of_units(kind, [each] * units, generator)


def ranked_lists(units: int) -> PreferenceBatch:
    """A batch of so many lists of 2, 3 or 4 ranked answers: `conforms_objective(..., batch=ranked_lists)`."""
    return _of_units(PreferenceBatch, [(3, 2, 4)[u % 3] for u in range(units)], torch.Generator().manual_seed(0))


def _of_units(kind: type[B], sizes: Sequence[int], generator: torch.Generator) -> B:
    """A batch with units of so many sequences each; the sequences of one unit share the length of their prompt."""
    rows, masks = [], []
    unit = [u for u, size in enumerate(sizes) for _ in range(size)]
    for sequence, u in enumerate(unit):
        prompt, answer = _PROMPTS[u % len(_PROMPTS)], _ANSWERS[sequence % len(_ANSWERS)]
        rows.append(torch.randint(VOCABULARY, (prompt + answer,), generator=generator).tolist())
        masks.append([False] * prompt + [True] * answer)
    if len(masks) > 3:
        masks[3][-3] = False
    batch = kind.of(rows, masks, unit=unit, temperature=TEMPERATURE)
    weight = torch.tensor([_WEIGHTS[u % len(_WEIGHTS)] for u in range(len(sizes))])
    return replace(batch, weight=weight)


def longer_prompts(batch: B) -> B:
    """The same sequences with 1 to 3 further prompt tokens each, as many within a unit."""
    extra = (1 + batch.unit % 3).tolist()
    lengths = batch.lengths().tolist()
    starts = [0, *itertools.accumulate(lengths)]
    at = torch.tensor(
        [i for e, n, s in zip(extra, lengths, starts, strict=False) for i in [s] * e + list(range(s, s + n))],
        dtype=torch.long,
    )
    new = torch.tensor([n + e for n, e in zip(lengths, extra, strict=True)], dtype=torch.long)
    sequence = torch.arange(batch.num_sequences).repeat_interleave(new)
    # Copies of the first token: it is never scored, and neither are they.
    return replace(
        batch,
        tokens=batch.tokens[at],
        sequence_id=sequence,
        position=torch.arange(len(at)) - (new.cumsum(0) - new)[sequence],
        response_mask=batch.response_mask[at],
        per_token={k: v[at] for k, v in batch.per_token.items()},
    )


def equal_responses(batch: B) -> B:
    """The same sequences, with as many scored tokens in each sequence of a unit as in its shortest one."""
    lengths = batch.response_lengths()
    least = lengths.new_full((batch.num_units,), 2**31).scatter_reduce(0, batch.unit, lengths, reduce="amin")
    kept = response_rank(batch) < least[batch.unit][batch.sequence_id]
    return replace(batch, response_mask=batch.response_mask & kept)


def response_rank(batch: Batch) -> Int[Tensor, "T"]:
    """Number of response tokens of the same sequence that come before each token."""
    counted = batch.response_mask.long().cumsum(0)
    lengths = batch.response_lengths()
    before = lengths.cumsum(0) - lengths
    return counted - batch.response_mask.long() - before[batch.sequence_id]
