"""Checks of a batch as it is made: lengths that fit, sequences and units in order, position 0 never scored."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Fields(Protocol):
    """The fields of a batch."""

    @property
    def sequence_id(self) -> Tensor: ...
    @property
    def position(self) -> Tensor: ...
    @property
    def response_mask(self) -> Tensor: ...
    @property
    def unit(self) -> Tensor: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def per_token(self) -> Mapping[str, Tensor]: ...
    @property
    def per_sequence(self) -> Mapping[str, Tensor]: ...
    @property
    def per_unit(self) -> Mapping[str, Tensor]: ...
    @property
    def temperature(self) -> float: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def num_sequences(self) -> int: ...
    @property
    def num_units(self) -> int: ...


def check_sizes(batch: Fields) -> None:
    """Refuse tensors whose first axis does not fit, and a temperature that is not positive.

    Raises:
        ValueError: names the batch, the field, and both lengths.
    """
    own = {n: getattr(batch, n) for n in ("sequence_id", "position", "response_mask")}
    sizes = (
        ("token", batch.num_tokens, {**own, **batch.per_token}),
        ("sequence", batch.num_sequences, batch.per_sequence),
        ("unit", batch.num_units, batch.per_unit),
    )
    for what, size, named in sizes:
        for name, value in named.items():
            if value.ndim < 1 or value.shape[0] != size:
                raise malformed(batch, f"{name} must have one entry per {what}, {size}, got shape {tuple(value.shape)}")
    if len(batch.names) not in (0, batch.num_sequences):
        raise malformed(
            batch, f"names must be one per sequence, {batch.num_sequences}, or none, got {len(batch.names)}"
        )
    if not batch.temperature > 0:
        raise malformed(batch, f"temperature must be > 0, got {batch.temperature}")


def check_numbers(batch: Fields) -> None:
    """Refuse sequences, positions or units that are not numbered in order, and a scored token at position 0.

    Raises:
        ValueError: names the batch and the rule.
    """
    first = batch.position == 0
    sequence = first.cumsum(0) - 1
    count = int(sequence[-1]) + 1 if batch.num_tokens else 0
    if not torch.equal(sequence, batch.sequence_id):
        raise malformed(batch, "sequence_id must count the sequences from 0, each of which starts at position 0")
    if count != batch.num_sequences:
        raise malformed(batch, f"its tokens make {count} sequences, and unit has {batch.num_sequences} entries")
    place = torch.arange(batch.num_tokens)
    if not torch.equal(batch.position, place - place[first][sequence]):
        raise malformed(batch, "position must count the tokens of each sequence from 0")
    if bool((batch.response_mask & first).any()):
        raise malformed(batch, "response_mask is true at position 0, where nothing before predicts the token")
    if not torch.equal(batch.unit.unique_consecutive(), torch.arange(batch.num_units)):
        raise malformed(batch, f"unit must number the {batch.num_units} units from 0, not decreasing and without gaps")


def check_rows(owner: str, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]]) -> None:
    """Refuse rows and masks that do not fit each other, and empty rows.

    Raises:
        ValueError: names `owner` and the row.
    """
    if len(rows) != len(masks):
        raise ValueError(f"{owner}: {len(rows)} rows and {len(masks)} masks; give one mask per row")
    for number, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        if len(row) != len(mask):
            raise ValueError(f"{owner}: row {number} has {len(row)} tokens and its mask {len(mask)} entries")
        if not row:
            raise ValueError(f"{owner}: row {number} has no tokens")


def malformed(batch: Fields, what: str) -> ValueError:
    """The error of a batch that breaks a rule."""
    return ValueError(f"{type(batch).__name__}: {what}")
