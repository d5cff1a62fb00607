"""Elements that a term of a loss is a mean over: functions from a batch to the weight of each element.

Axes: T tokens, S sequences, W units.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch

Weights: TypeAlias = Callable[[Any], Tensor]
"""Weight of every element that a term is a mean over: `tokens`, `sequences`, `units`, or a function of your own."""


def tokens(batch: Batch) -> Float[Tensor, "T"]:
    """Mean over response tokens: `(T,)` the weight of each."""
    return batch.weight_by_token()


def sequences(batch: Batch) -> Float[Tensor, "S"]:
    """Mean over sequences: `(S,)` the weight of each."""
    return batch.weight_by_sequence()


def units(batch: Batch) -> Float[Tensor, "W"]:
    """Mean over units (pairs, lists, labelled answers): `(W,)` the weight of each."""
    return batch.weight


pairs = units
"""Mean over pairs: the units of a `PreferenceBatch`."""


def chosen_tokens(batch: PreferenceBatch) -> Float[Tensor, "T"]:
    """Mean over the response tokens of the best answer of each unit: `(T,)` the weight of each."""
    return batch.weight_by_token() * (batch.rank() == 0)[batch.sequence_id]


DEFAULT_PER: Mapping[type[Batch], Weights] = {
    PreferenceBatch: units,
    LabelledBatch: units,
    RolloutBatch: tokens,
    TokenBatch: tokens,
    Batch: tokens,
}
"""Default elements of a loss, by the batch that its objective takes."""
