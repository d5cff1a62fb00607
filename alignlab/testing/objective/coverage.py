"""Checks that every declared name, every sequence and every response token has an effect."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.objective import Objective
from alignlab.testing.objective.cases import PER_SEQUENCE, Axis, Case
from alignlab.testing.objective.start import at_start, mirrored
from alignlab.testing.objective.step import differ, run
from alignlab.testing.objective.subject import ObjectiveSubject

_MOVES: Sequence[Callable[[Tensor], Tensor]] = (
    lambda x: x + 1,
    lambda x: x - 1,
    lambda x: -x,
)
"""Other values of an extra; clipping hides one of them, not all."""


def _nan(x: Tensor) -> Tensor:
    """NaN reaches the loss even through a coefficient of 0."""
    return torch.full_like(x, float("nan"))


def everything_declared_counts(subject: ObjectiveSubject) -> None:
    """Every name in `needs` and `reads` changes the loss or a metric.

    A name that only other arguments use is allowed: the default arguments are tried too.
    """
    objective, case = subject.make(), subject.case()
    objects = [subject.make, *_with_defaults(objective)]
    for name in sorted(objective.needs | objective.reads):
        changes = list(_changes(case, name))
        expected = [run(make(), case) for make in objects]
        used = any(
            differ(before, run(make(), changed))
            for make, before in zip(objects, expected, strict=True)
            for changed in changes
        )
        assert used or not changes, (
            f"{subject.name}: declares {name!r}, and nothing depends on it; use it, or take it out of `needs` or "
            f"`reads`"
        )


def _with_defaults(objective: Objective[Any]) -> list[Callable[[], Objective[Any]]]:
    """Makes an objective of the same class with its default arguments, where they are enough and declare the same."""
    try:
        default = type(objective)()
    except (TypeError, ValueError):
        return []
    same = (default.needs, default.reads) == (objective.needs, objective.reads)
    return [lambda: type(objective)()] if same else []


def _changes(case: Case, name: str) -> Iterator[Case]:
    """The case with other values of one statistic or extra; none where it holds whole numbers."""
    scored, sequences = case.batch.response_mask, torch.ones(case.batch.num_sequences, dtype=torch.bool)
    if name == "mismatched":
        sequences = case.batch.rank() > 0
        scored = scored & case.along(sequences)
        yield from (_changed(case, k, scored, sequences, move) for k in case.stats for move in (*_MOVES, _nan))
        return
    if case.is_number(name):
        yield from (_changed(case, name, scored, sequences, move) for move in (*_MOVES, _nan))


def every_sequence_counts(subject: ObjectiveSubject) -> None:
    """Each sequence that is trained, and that some term gives a weight, has a gradient at the start of training."""
    counts = _Counts(subject)
    by_sequence, weighted = counts.by_sequence(), _weighted(subject, counts.case)
    trained = [s for s in counts.trained() if weighted[s]]
    lost = [s for s in trained if not any(bool(c[s]) for c in by_sequence.values())]
    assert not lost, (
        f"{subject.name}: sequences {lost} of {len(trained)} have no gradient at the start of training; does a mask or "
        f"a list end too early?"
    )


def _weighted(subject: ObjectiveSubject, case: Case) -> Tensor:
    """`(S,)` true for each sequence that some term of the loss gives a weight."""
    found = torch.zeros(case.batch.num_sequences, dtype=torch.bool)
    for weights in subject.make().per.values():
        counted = (weights(case.batch) != 0).reshape(len(weights(case.batch)), -1).any(1)  # an element may have parts
        if len(counted) == case.batch.num_tokens:
            found |= torch.zeros(len(found)).index_add(0, case.batch.sequence_id, counted.float()) > 0
        else:
            found |= counted if len(counted) == len(found) else counted[case.batch.unit]
    return found


def every_response_token_counts(subject: ObjectiveSubject) -> None:
    """The first and the last response token (the stop token) count, in statistics and in per-token extras.

    A statistic that some token between the two does not need either is sparse on purpose (labels at the ends of steps)
    and not judged.
    """
    counts = _Counts(subject)
    inner = counts.inner()
    for name in sorted(counts.case.stats.keys() - PER_SEQUENCE):
        counted, used = counts.by_entry[name], counts.case.along(counts.by_sequence()[name])
        if bool((inner & used & ~counted).any()):
            continue
        for sequence in counts.trained():
            lost = [place for place, token in counts.ends(sequence) if used[token] and not counted[token]]
            assert not lost, (
                f"{subject.name}: {name} of the {' and the '.join(lost)} response token has no gradient; every "
                f"response token counts, the stop token included"
            )
    for name in sorted(subject.make().reads & counts.case.batch.per_token.keys()):
        _extra_counts(subject, counts, name)


class _Counts:
    """Where statistics and per-token extras have a gradient at the start of training.

    Labels are taken as they are and turned round: some losses learn from one side only.
    """

    def __init__(self, subject: ObjectiveSubject) -> None:
        self.case = at_start(subject.case())
        self.starts = (self.case, mirrored(self.case))
        self.outcomes = [run(subject.make(), start.with_leaves()) for start in self.starts]
        gradients = [o.gradient for o in self.outcomes]
        self.by_entry = {name: torch.stack([g[name] != 0 for g in gradients]).any(0) for name in gradients[0]}

    def by_sequence(self) -> dict[str, Tensor]:
        """`(S,)` of each statistic: whether it has a gradient anywhere in a sequence."""
        found = {}
        for name in self.case.stats:
            at, sequence = self.by_entry[name], self.case.batch.sequence_id
            any_of = at.reshape(len(at), -1).any(1)  # a statistic may be of several attributes
            count = torch.zeros(self.case.batch.num_sequences)
            found[name] = any_of if name in PER_SEQUENCE else count.index_add(0, sequence, any_of.float()) > 0
        return found

    def trained(self) -> list[int]:
        """The sequences with response tokens that a gradient is taken of."""
        batch = self.case.batch
        found = batch.response_lengths() > 0
        if batch.trained().num_sequences < batch.num_sequences:
            found = found & (batch.rank() == 0)
        return [int(s) for s in found.nonzero()[:, 0]]

    def scored(self, sequence: int) -> Tensor:
        """`(T,)` true at the response tokens of one sequence."""
        found: Tensor = self.case.batch.response_mask & (self.case.batch.sequence_id == sequence)
        return found

    def inner(self) -> Tensor:
        """`(T,)` true at response tokens of trained sequences that are neither the first nor the last."""
        found: Tensor = torch.zeros_like(self.case.batch.response_mask)
        for sequence in self.trained():
            found |= self.scored(sequence)
            found[[token for _, token in self.ends(sequence)]] = False
        return found

    def ends(self, sequence: int) -> list[tuple[str, int]]:
        """The first and the last response token of a sequence."""
        at = self.scored(sequence).nonzero()[:, 0]
        return [("first", int(at[0])), ("last", int(at[-1]))]


def _extra_counts(subject: ObjectiveSubject, counts: _Counts, name: str) -> None:
    """Insist on the first and the last response token of one per-token extra, in sequences that read it at all."""

    def matters(tokens: Tensor) -> bool:
        """Whether the extra has a gradient at some tokens, or other values of it change the loss or a metric."""
        return bool(counts.by_entry[name][tokens].any()) or _matters(subject, counts, name, tokens)

    def one(token: int) -> Tensor:
        return torch.arange(counts.case.batch.num_tokens) == token

    if not counts.case.is_number(name) or not matters(counts.case.batch.response_mask):
        return
    for sequence in counts.trained():
        lost = [place for place, token in counts.ends(sequence) if not matters(one(token))]
        inner = (counts.inner() & counts.scored(sequence)).nonzero()[:, 0].tolist()
        sparse = lost and not all(matters(one(token)) for token in inner)
        assert not lost or sparse or not matters(counts.scored(sequence)), (
            f"{subject.name}: {name} of the {' and the '.join(lost)} response token changes nothing, though others do; "
            f"is it read at the wrong token?"
        )


def _matters(subject: ObjectiveSubject, counts: _Counts, name: str, tokens: Tensor) -> bool:
    none = torch.zeros(counts.case.batch.num_sequences, dtype=torch.bool)
    return any(
        differ(expected, run(subject.make(), _changed(start, name, tokens, none, move)))
        for start, expected in zip(counts.starts, counts.outcomes, strict=True)
        for move in _MOVES
    )


def _changed(case: Case, name: str, tokens: Tensor, sequences: Tensor, move: Callable[[Tensor], Tensor]) -> Case:
    """The case with one statistic or extra moved: at some tokens, of some sequences, or of every unit."""
    at: dict[Axis, Tensor] = {"token": tokens, "sequence": sequences}

    def change(own: str, x: Tensor, axis: Axis) -> Tensor:
        if own != name:
            return x
        if axis == "unit":
            return move(x)
        shape = (-1, *[1] * (x.ndim - 1))
        return torch.where(at[axis].reshape(shape), move(x), x)

    return case.map(change)
