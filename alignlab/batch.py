"""What flows between data, policy and objective: flat batches and the statistics of their tokens.

A batch is *flat*: all its tokens stand in one row, and `sequence_id` and `position` say where each belongs. There
is no padding, so nothing downstream can forget to mask it. How the policy runs a flat batch (length buckets, varlen
attention) is its own affair.

Axes: T tokens, S sequences, W weighted units (sequences, or pairs), A atoms (what may not be torn apart when a
batch is cut: sequences, pairs, groups).
"""

import abc
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch(abc.ABC):
    """Flat sequences with a mask of the tokens that are scored and a weight for every unit.

    Args:
        tokens: `(T,)` token ids.
        sequence_id: `(T,)` sequence of each token, 0 .. S-1, not decreasing.
        position: `(T,)` place of each token in its own sequence, from 0.
        response_mask: `(T,)` true where the token is scored; never at position 0, which nothing comes before.
        weight: `(W,)` weight of each unit, 1 by default; objectives multiply by it.
        per_token: further `(T,)` tensors by name (`reference_logp`, `old_logp`, `advantage`, ...).
        per_sequence: further `(S,)` tensors by name (`reward`, `desirable`, `group`, ...).
        names: `(S,)` where each sequence came from, for messages; may be empty.
    """

    tokens: Int[Tensor, "T"]
    sequence_id: Int[Tensor, "T"]
    position: Int[Tensor, "T"]
    response_mask: Bool[Tensor, "T"]
    weight: Float[Tensor, "W"]
    per_token: Mapping[str, Tensor] = field(default_factory=dict)
    per_sequence: Mapping[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    SEQUENCES_PER_WEIGHT: ClassVar[int] = 1

    # ---- sizes ----------------------------------------------------------------------------------------------------
    @property
    def num_tokens(self) -> int:
        """T."""
        return self.tokens.shape[0]

    @property
    def num_sequences(self) -> int:
        """S."""
        return self.weight.shape[0] * self.SEQUENCES_PER_WEIGHT

    def lengths(self) -> Int[Tensor, "S"]:
        """Tokens of each sequence."""
        return torch.bincount(self.sequence_id, minlength=self.num_sequences)

    def atom_of_sequence(self) -> Int[Tensor, "S"]:
        """Which atom each sequence belongs to; 0 .. A-1, not decreasing."""
        sequences = torch.arange(self.num_sequences, device=self.tokens.device)
        return sequences // self.SEQUENCES_PER_WEIGHT

    # ---- named extras ---------------------------------------------------------------------------------------------
    def token(self, name: str) -> Float[Tensor, "T"]:
        """The per-token extra `name`; an error that says who should have filled it in when it is not there."""
        if name not in self.per_token:
            have = ", ".join(sorted(self.per_token)) or "none"
            raise KeyError(
                f"{type(self).__name__} has no per-token {name!r} (it has: {have}); an objective that uses it must "
                f"name it in `reads`, and its stage must fill it in"
            )
        return self.per_token[name]

    def sequence(self, name: str) -> Tensor:
        """The per-sequence extra `name`, `(S,)`."""
        if name not in self.per_sequence:
            have = ", ".join(sorted(self.per_sequence)) or "none"
            raise KeyError(
                f"{type(self).__name__} has no per-sequence {name!r} (it has: {have}); an objective that uses it must "
                f"name it in `reads`, and its stage must fill it in"
            )
        return self.per_sequence[name]

    def with_tokens(self, **extras: Float[Tensor, "T"]) -> Self:
        """The same batch with further per-token tensors."""
        return replace(self, per_token={**self.per_token, **extras})

    def with_sequences(self, **extras: Tensor) -> Self:
        """The same batch with further per-sequence tensors."""
        return replace(self, per_sequence={**self.per_sequence, **extras})

    @property
    def reference_logp(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: what the frozen reference gives each token."""
        return self.token("reference_logp")

    # ---- reductions -----------------------------------------------------------------------------------------------
    def scored(self, x: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
        """`x` at response tokens, 0 elsewhere: before anything curved is done to it, or a masked NaN has a gradient."""
        return torch.where(self.response_mask, x, torch.zeros_like(x))

    def sum_by_sequence(self, x: Float[Tensor, "T"]) -> Float[Tensor, "S"]:
        """Sum of `x` over the response tokens of each sequence; what stands elsewhere cannot leak in, not even NaN."""
        kept = self.scored(x)
        return kept.new_zeros(self.num_sequences).index_add(0, self.sequence_id, kept)

    def response_lengths(self) -> Int[Tensor, "S"]:
        """Response tokens of each sequence."""
        return torch.bincount(self.sequence_id[self.response_mask], minlength=self.num_sequences)

    def weight_by_sequence(self) -> Float[Tensor, "S"]:
        """The weight of the unit that each sequence belongs to."""
        return self.weight.repeat_interleave(self.SEQUENCES_PER_WEIGHT)

    def weight_by_token(self) -> Float[Tensor, "T"]:
        """The weight of each token: its unit's at response tokens, 0 elsewhere."""
        return self.weight_by_sequence()[self.sequence_id] * self.response_mask

    def last_tokens(self) -> Int[Tensor, "S"]:
        """Index of each sequence's last token."""
        return self.lengths().cumsum(0) - 1

    # ---- cutting and joining --------------------------------------------------------------------------------------
    def select_sequences(self, index: Int[Tensor, "s"]) -> Self:
        """The batch of the sequences `index`, in that order; `index` must hold whole units."""
        lengths = self.lengths()
        starts = lengths.cumsum(0) - lengths
        taken = lengths[index]
        offset = torch.arange(int(taken.sum()), device=self.tokens.device)
        offset = offset - (taken.cumsum(0) - taken).repeat_interleave(taken)
        at = starts[index].repeat_interleave(taken) + offset
        number = torch.arange(index.shape[0], device=self.tokens.device)
        units = index[:: self.SEQUENCES_PER_WEIGHT] // self.SEQUENCES_PER_WEIGHT
        return replace(
            self,
            tokens=self.tokens[at],
            sequence_id=number.repeat_interleave(taken),
            position=self.position[at],
            response_mask=self.response_mask[at],
            weight=self.weight[units],
            per_token={k: v[at] for k, v in self.per_token.items()},
            per_sequence={k: v[index] for k, v in self.per_sequence.items()},
            names=tuple(self.names[i] for i in index.tolist()) if self.names else (),
        )

    def select_atoms(self, atoms: Sequence[int]) -> Self:
        """The batch of the given atoms, in that order. No atom at all gives an empty batch."""
        of = self.atom_of_sequence().tolist()
        members: dict[int, list[int]] = {}
        for sequence, atom in enumerate(of):
            members.setdefault(atom, []).append(sequence)
        index = [s for a in atoms for s in members.get(a, [])]
        return self.select_sequences(torch.tensor(index, dtype=torch.long, device=self.tokens.device))

    @property
    def num_atoms(self) -> int:
        """A."""
        of = self.atom_of_sequence()
        return int(of[-1]) + 1 if of.numel() else 0

    def micro_batches(self, max_tokens: int) -> list[Self]:
        """Cut between atoms so that each part has at most `max_tokens` tokens, or is a single longer atom."""
        if max_tokens <= 0:
            raise ValueError(f"micro_batch_tokens must be > 0, got {max_tokens}; it is the tokens of one forward pass")
        sizes = torch.bincount(self.atom_of_sequence(), weights=self.lengths().double(), minlength=self.num_atoms)
        parts: list[list[int]] = []
        room = 0
        for atom, size in enumerate(sizes.long().tolist()):
            if not parts or size > room:
                parts.append([])
                room = max_tokens
            parts[-1].append(atom)
            room -= size
        return [self] if len(parts) <= 1 else [self.select_atoms(p) for p in parts]

    def shard(self, rank: int, world_size: int) -> Self:
        """The atoms of one of `world_size` processes: every world_size-th, from `rank`."""
        return self if world_size == 1 else self.select_atoms(range(rank, self.num_atoms, world_size))

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


def flat(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"], Int[Tensor, "T"]]:
    """`tokens`, `sequence_id` and `position` of the given rows of token ids."""
    tokens = torch.tensor([t for row in rows for t in row], dtype=torch.long)
    sequence_id = torch.tensor([s for s, row in enumerate(rows) for _ in row], dtype=torch.long)
    position = torch.tensor([p for row in rows for p in range(len(row))], dtype=torch.long)
    return tokens, sequence_id, position


def flat_mask(rows: Sequence[Sequence[bool]]) -> Bool[Tensor, "T"]:
    """Response masks joined; position 0 is never a response token, as nothing comes before it."""
    return torch.tensor([bool(m) and p > 0 for row in rows for p, m in enumerate(row)], dtype=torch.bool)


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Texts and answered instructions: the unit that is weighted is the sequence."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]], names: Sequence[str] = ()) -> Self:
        """From rows of token ids and of masks, every unit of weight 1."""
        weight = torch.ones(len(rows) // cls.SEQUENCES_PER_WEIGHT)
        return cls(*flat(rows), response_mask=flat_mask(masks), weight=weight, names=tuple(names))


@dataclass(frozen=True)
class LabelledBatch(TokenBatch):
    """Single answers that are good or bad (KTO): `desirable` is a per-sequence extra of 0 and 1."""

    @property
    def desirable(self) -> Tensor:
        """`(S,)` 1 where the answer is a good one."""
        return self.sequence("desirable")


@dataclass(frozen=True)
class PreferenceBatch(TokenBatch):
    """Pairs of answers to one prompt: sequences 2p and 2p+1 are the chosen and the rejected answer of pair p."""

    SEQUENCES_PER_WEIGHT: ClassVar[int] = 2

    def chosen(self, x: Tensor) -> Tensor:
        """`(P,)` the chosen answers' entries of an `(S,)` tensor."""
        return x[0::2]

    def rejected(self, x: Tensor) -> Tensor:
        """`(P,)` the rejected answers' entries of an `(S,)` tensor."""
        return x[1::2]


@dataclass(frozen=True)
class RolloutBatch(TokenBatch):
    """Sampled answers, in groups that share a prompt; the unit that is weighted is the sample.

    Extras: `old_logp`, `reference_logp`, `old_value`, `advantage`, `returns` per token (response tokens count);
    `reward`, `finished` (1 when a stop token ended it) and `group` per sequence.

    Args:
        temperature: the sampling temperature; `logp` is the log-probability *at that temperature*.
    """

    temperature: float = 1.0

    def atom_of_sequence(self) -> Int[Tensor, "S"]:
        """The group of each sample, numbered in order; samples without a group stand alone."""
        if "group" not in self.per_sequence:
            return super().atom_of_sequence()
        group = self.per_sequence["group"]
        new = torch.ones_like(group, dtype=torch.bool)
        new[1:] = group[1:] != group[:-1]
        return new.long().cumsum(0) - 1

    @property
    def old_logp(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: the policy that sampled, recomputed by the trainer, fixed while its rollouts are used."""
        return self.token("old_logp")

    @property
    def old_value(self) -> Float[Tensor, "T"]:
        """`(T,)` reward units: the critic's forecast when the rollouts were made."""
        return self.token("old_value")

    @property
    def advantage(self) -> Float[Tensor, "T"]:
        """`(T,)` how much better than expected each token was."""
        return self.token("advantage")

    @property
    def returns(self) -> Float[Tensor, "T"]:
        """`(T,)` reward units: what the critic should have forecast."""
        return self.token("returns")


B = TypeVar("B", bound=Batch)


def concatenate(parts: Sequence[B]) -> B:
    """Join batches of one kind and the same extras; sequence and group numbers go on counting."""
    sequences = [0, *itertools.accumulate(p.num_sequences for p in parts)]
    groups = [0, *itertools.accumulate(p.num_atoms for p in parts)]

    def join(name: str) -> Tensor:
        return torch.cat([getattr(p, name) for p in parts])

    per_sequence = {k: torch.cat([p.per_sequence[k] for p in parts]) for k in parts[0].per_sequence}
    if "group" in per_sequence:
        per_sequence["group"] = torch.cat([p.atom_of_sequence() + g for p, g in zip(parts, groups, strict=False)])
    return replace(
        parts[0],
        tokens=join("tokens"),
        sequence_id=torch.cat([p.sequence_id + s for p, s in zip(parts, sequences, strict=False)]),
        position=join("position"),
        response_mask=join("response_mask"),
        weight=join("weight"),
        per_token={k: torch.cat([p.per_token[k] for p in parts]) for k in parts[0].per_token},
        per_sequence=per_sequence,
        names=tuple(n for p in parts for n in p.names),
    )
