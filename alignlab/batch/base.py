"""Flat batches: what flows between data, policy and objective.

A batch is *flat*: all its tokens stand in one row, and `sequence_id` and `position` say where each belongs. There is no
padding, so nothing downstream can forget to mask it. How a flat batch is run (length buckets, varlen attention) is left
to the policy. A *unit* is weighted as a whole, and cutting a batch never splits it: a text, a pair of answers, a ranked
list.

Axes: T tokens, S sequences, W units.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from alignlab.batch.checks import check_numbers, check_rows, check_sizes


@dataclass(frozen=True)
class Batch:
    """Flat sequences, grouped into weighted units, with a mask of the tokens that are scored.

    Lengths, order and position 0 are checked when a batch is made, so that a malformed one never reaches a loss.

    Args:
        tokens: `(T,)` token ids.
        sequence_id: `(T,)` sequence of each token, 0 .. S-1, not decreasing.
        position: `(T,)` place of each token in its own sequence, from 0.
        response_mask: `(T,)` true where the token is scored; never at position 0, which has nothing before it.
        unit: `(S,)` unit of each sequence, 0 .. W-1, not decreasing.
        weight: `(W,)` weight of each unit, 1 by default. A unit of weight 0 has no effect.
        per_token: further `(T, ...)` tensors by name (`reference_logp`, `old_logp`, `advantage`, ...).
        per_sequence: further `(S, ...)` tensors by name (`reward`, `finished`, `group`, ...).
        per_unit: further `(W, ...)` tensors by name (`margin`, `desirable`, ...).
        step: constants of the whole optimizer step by name, from `Objective.step_means`.
        names: where each sequence came from, for messages; one per sequence, or none.
        temperature: of the log-probabilities of these tokens: the one that they were sampled at, else 1.

    Raises:
        ValueError: lengths do not fit each other, numbers are out of order, or position 0 is scored.
    """

    tokens: Int[Tensor, "T"]
    sequence_id: Int[Tensor, "T"]
    position: Int[Tensor, "T"]
    response_mask: Bool[Tensor, "T"]
    unit: Int[Tensor, "S"]
    weight: Float[Tensor, "W"]
    per_token: Mapping[str, Tensor] = field(default_factory=dict)
    per_sequence: Mapping[str, Tensor] = field(default_factory=dict)
    per_unit: Mapping[str, Tensor] = field(default_factory=dict)
    step: Mapping[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.tokens.device.type == "cpu":  # on another device, reading values would wait for it
            self.check_numbers()

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[int]],
        masks: Sequence[Sequence[bool]],
        names: Sequence[str] = (),
        *,
        unit: Sequence[int] | None = None,
        temperature: float = 1.0,
    ) -> Self:
        """A batch of rows of token ids and masks; every unit has weight 1.

        Args:
            rows: token ids of each sequence.
            masks: as long as their rows; position 0 is never scored, whatever its mask says.
            names: of the sequences.
            unit: of each sequence; by default as the class groups them (pairs in a `PreferenceBatch`).
            temperature: see the class.
        """
        check_rows(cls.__name__, rows, masks)
        tokens = torch.tensor([t for row in rows for t in row], dtype=torch.long)
        sequence_id = torch.tensor([s for s, row in enumerate(rows) for _ in row], dtype=torch.long)
        position = torch.tensor([p for row in rows for p in range(len(row))], dtype=torch.long)
        mask = torch.tensor([bool(m) and p > 0 for row in masks for p, m in enumerate(row)], dtype=torch.bool)
        units = torch.tensor(cls._default_units(len(rows)) if unit is None else list(unit), dtype=torch.long)
        weight = torch.ones(int(units[-1]) + 1 if len(rows) else 0)
        return cls(tokens, sequence_id, position, mask, units, weight, names=tuple(names), temperature=temperature)

    @classmethod
    def _default_units(cls, sequences: int) -> list[int]:
        return list(range(sequences))

    def check_numbers(self) -> None:
        """Check the values of the index tensors; called where they are on the CPU."""
        check_numbers(self)

    # ---- sizes ----------------------------------------------------------------------------------------------------
    @property
    def num_tokens(self) -> int:
        """T."""
        return self.tokens.shape[0]

    @property
    def num_sequences(self) -> int:
        """S."""
        return self.unit.shape[0]

    @property
    def num_units(self) -> int:
        """W."""
        return self.weight.shape[0]

    def lengths(self) -> Int[Tensor, "S"]:
        """Tokens of each sequence."""
        return torch.bincount(self.sequence_id, minlength=self.num_sequences)

    def response_lengths(self) -> Int[Tensor, "S"]:
        """Response tokens of each sequence."""
        return torch.bincount(self.sequence_id[self.response_mask], minlength=self.num_sequences)

    def last_tokens(self) -> Int[Tensor, "S"]:
        """Index of each sequence's last token."""
        return self.lengths().cumsum(0) - 1

    def rank(self) -> Int[Tensor, "S"]:
        """Place of each sequence in its unit, from 0."""
        counts = torch.bincount(self.unit, minlength=self.num_units)
        start = counts.cumsum(0) - counts
        return torch.arange(self.num_sequences, device=self.unit.device) - start[self.unit]

    # ---- named extras ---------------------------------------------------------------------------------------------
    def token(self, name: str) -> Tensor:
        """The per-token extra `name`, `(T, ...)`; the error on a missing one says which part must fill it in."""
        return self._extra("per-token", self.per_token, name)

    def sequence(self, name: str) -> Tensor:
        """The per-sequence extra `name`, `(S, ...)`."""
        return self._extra("per-sequence", self.per_sequence, name)

    def of_unit(self, name: str) -> Tensor:
        """The per-unit extra `name`, `(W, ...)`."""
        return self._extra("per-unit", self.per_unit, name)

    def _extra(self, kind: str, extras: Mapping[str, Tensor], name: str) -> Tensor:
        if name not in extras:
            have = ", ".join(sorted(extras)) or "none"
            raise KeyError(
                f"{type(self).__name__} has no {kind} {name!r} (it has: {have}); an objective that uses it must name "
                f"it in `reads`, and its stage must fill it in"
            )
        return extras[name]

    def with_tokens(self, **extras: Tensor) -> Self:
        """The same batch with further per-token tensors."""
        return replace(self, per_token={**self.per_token, **extras})

    def without_tokens(self, names: Collection[str]) -> Self:
        """The same batch without some per-token tensors."""
        return replace(self, per_token={k: v for k, v in self.per_token.items() if k not in names})

    def with_sequences(self, **extras: Tensor) -> Self:
        """The same batch with further per-sequence tensors."""
        return replace(self, per_sequence={**self.per_sequence, **extras})

    def with_units(self, **extras: Tensor) -> Self:
        """The same batch with further per-unit tensors."""
        return replace(self, per_unit={**self.per_unit, **extras})

    def with_constants(self, constants: Mapping[str, Tensor]) -> Self:
        """The same batch with these constants of the optimizer step, see `Objective.step_means`."""
        return replace(self, step=dict(constants))

    @property
    def reference_logp(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: log-probability of each token under the frozen reference."""
        return self.token("reference_logp")

    # ---- reductions -----------------------------------------------------------------------------------------------
    def scored(self, x: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
        """`x` at response tokens, 0 elsewhere. Use it before nonlinear functions: a masked NaN would get a gradient."""
        return torch.where(self.response_mask, x, torch.zeros_like(x))

    def sum_by_sequence(self, x: Float[Tensor, "T"]) -> Float[Tensor, "S"]:
        """Sum of `x` over the response tokens of each sequence; other tokens cannot leak in, not even NaN."""
        kept = self.scored(x)
        return kept.new_zeros(self.num_sequences).index_add(0, self.sequence_id, kept)

    def mean_by_sequence(self, x: Float[Tensor, "T"]) -> Float[Tensor, "S"]:
        """Mean of `x` over the response tokens of each sequence; 0 where there is none."""
        return self.sum_by_sequence(x) / self.response_lengths().clamp_min(1).to(x.dtype)

    def sum_by_unit(self, x: Float[Tensor, "S"]) -> Float[Tensor, "W"]:
        """Sum of `x` over the sequences of each unit."""
        return x.new_zeros(self.num_units).index_add(0, self.unit, x)

    def weight_by_sequence(self) -> Float[Tensor, "S"]:
        """Weight of the unit that each sequence belongs to."""
        return self.weight[self.unit]

    def weight_by_token(self) -> Float[Tensor, "T"]:
        """Weight of each token: that of its unit at response tokens, 0 elsewhere."""
        return self.weight_by_sequence()[self.sequence_id] * self.response_mask

    # ---- cutting --------------------------------------------------------------------------------------------------
    def select_units(self, units: Sequence[int]) -> Self:
        """The batch of the given units, in that order; no unit at all gives an empty batch."""
        members: dict[int, list[int]] = {}
        for sequence, unit in enumerate(self.unit.tolist()):
            members.setdefault(unit, []).append(sequence)
        taken = [(s, new) for new, old in enumerate(units) for s in members.get(old, [])]
        return self._take([s for s, _ in taken], [new for _, new in taken], list(units))

    def trained(self) -> Self:
        """The sequences that are trained: all, unless some are there for a step-wide constant only."""
        return self

    def _take(self, sequences: Sequence[int], unit: Sequence[int], units: Sequence[int]) -> Self:
        """Some sequences in a given order, with the new unit of each, and the old numbers of those units."""
        index, kept, new = (
            torch.tensor(x, dtype=torch.long, device=self.unit.device) for x in (sequences, units, unit)
        )
        lengths = self.lengths()
        starts, taken = lengths.cumsum(0) - lengths, lengths[index]
        offset = torch.arange(int(taken.sum()), device=self.tokens.device)
        offset = offset - (taken.cumsum(0) - taken).repeat_interleave(taken)
        at = starts[index].repeat_interleave(taken) + offset
        return replace(
            self,
            tokens=self.tokens[at],
            sequence_id=torch.arange(len(sequences), device=self.tokens.device).repeat_interleave(taken),
            position=self.position[at],
            response_mask=self.response_mask[at],
            unit=new,
            weight=self.weight[kept],
            per_token={k: v[at] for k, v in self.per_token.items()},
            per_sequence={k: v[index] for k, v in self.per_sequence.items()},
            per_unit={k: v[kept] for k, v in self.per_unit.items()},
            names=tuple(self.names[i] for i in sequences) if self.names else (),
        )

    def micro_batches(self, max_tokens: int) -> list[Self]:
        """Cut between units so that each part has at most `max_tokens` tokens, or is a single longer unit."""
        if max_tokens <= 0:
            raise ValueError(f"micro_batch_tokens must be > 0, got {max_tokens}; it is the tokens of one forward pass")
        tokens = torch.bincount(self.unit[self.sequence_id], minlength=self.num_units)
        parts: list[list[int]] = []
        room = 0
        for unit, size in enumerate(tokens.tolist()):
            if not parts or size > room:
                parts.append([])
                room = max_tokens
            parts[-1].append(unit)
            room -= size
        return [self] if len(parts) <= 1 else [self.select_units(p) for p in parts]

    def shard(self, rank: int, world_size: int) -> Self:
        """The units of one of `world_size` processes: every world_size-th, from `rank`."""
        return self if world_size == 1 else self.select_units(range(rank, self.num_units, world_size))

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device."""
        return self._map(lambda x: x.to(device))

    def _map(self, f: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = f(value)
            elif isinstance(value, Mapping):
                changed[item.name] = {k: f(v) for k, v in value.items()}
        return replace(self, **changed)  # type: ignore[arg-type]  # names and types come from the fields themselves
