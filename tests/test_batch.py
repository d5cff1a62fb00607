"""Flat batches: cutting, joining and summing lose nothing and mix nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignlab.batch import PreferenceBatch, RolloutBatch, TokenBatch, concatenate
from alignlab.objective import Loss, token_units
from alignlab.stats import Mean, TokenStats

ROWS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
MASKS = [[False, True, True, True], [False, True], [True, False, True]]


def same(a: TokenBatch, b: TokenBatch) -> bool:
    tensors = ("tokens", "sequence_id", "position", "response_mask", "weight")
    extras = all(torch.equal(a.per_token[k], b.per_token[k]) for k in a.per_token)
    return all(torch.equal(getattr(a, t), getattr(b, t)) for t in tensors) and extras and a.names == b.names


def test_the_first_token_is_never_scored() -> None:
    batch = TokenBatch.of(ROWS, MASKS)
    assert batch.response_mask.tolist() == [False, True, True, True, False, True, False, False, True]


def test_sums_by_sequence_close_on_paper_and_masked_nan_does_not_leak() -> None:
    batch = TokenBatch.of(ROWS, MASKS)
    x = torch.tensor([math.nan, 1.0, 2.0, 3.0, math.inf, 4.0, 100.0, math.nan, 5.0])
    assert batch.sum_by_sequence(x).tolist() == [6.0, 4.0, 5.0]
    assert batch.lengths().tolist() == [4, 2, 3]
    assert batch.response_lengths().tolist() == [3, 1, 1]
    assert batch.last_tokens().tolist() == [3, 5, 8]


lengths = st.lists(st.integers(1, 9), min_size=2, max_size=12).map(lambda x: x[: len(x) // 2 * 2])


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(1, 30))
def test_micro_batches_joined_are_the_batch(sizes: list[int], budget: int) -> None:
    rows = [list(range(i, i + n)) for i, n in enumerate(sizes)]
    batch = PreferenceBatch.of(rows, [[True] * n for n in sizes], [f"r{i}" for i in range(len(sizes))])
    batch = batch.with_tokens(reference_logp=torch.arange(float(batch.num_tokens)))
    parts = batch.micro_batches(budget)
    assert same(concatenate(parts), batch)
    assert all(p.num_tokens <= budget or p.num_atoms == 1 for p in parts)


@settings(max_examples=20, deadline=None)
@given(lengths, st.integers(1, 4))
def test_shards_hold_every_pair_once(sizes: list[int], world: int) -> None:
    rows = [[i] * n for i, n in enumerate(sizes)]
    batch = PreferenceBatch.of(rows, [[True] * n for n in sizes])
    firsts = [int(s.tokens[p]) for r in range(world) for s in [batch.shard(r, world)] for p in _starts(s)]
    assert sorted(firsts) == list(range(len(sizes)))


def _starts(batch: TokenBatch) -> list[int]:
    ends: Tensor = batch.lengths().cumsum(0)
    return (ends - batch.lengths()).tolist()


def test_groups_stay_whole_and_apart() -> None:
    batch = RolloutBatch.of([[1, 2]] * 5, [[False, True]] * 5).with_sequences(group=torch.tensor([7, 7, 7, 9, 9]))
    assert batch.atom_of_sequence().tolist() == [0, 0, 0, 1, 1]
    assert [p.num_sequences for p in batch.micro_batches(4)] == [3, 2]
    joined = concatenate([batch, batch])
    assert joined.atom_of_sequence().tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def test_pairs_are_interleaved() -> None:
    batch = PreferenceBatch.of([[1, 2], [3, 4], [5, 6], [7, 8]], [[False, True]] * 4)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert (batch.chosen(x).tolist(), batch.rejected(x).tolist()) == ([1.0, 3.0], [2.0, 4.0])
    assert batch.weight_by_sequence().tolist() == [1.0] * 4


def test_a_missing_extra_says_who_should_bring_it() -> None:
    batch = TokenBatch.of(ROWS, MASKS)
    with pytest.raises(KeyError, match=r"no per-token 'reference_logp'.*name it in `reads`"):
        _ = batch.reference_logp
    with pytest.raises(KeyError, match=r"not 'logp'; name it in the objective's `needs`"):
        _ = TokenStats({}).logp


def test_token_means_and_sequence_means_differ_as_they_should() -> None:
    batch = TokenBatch.of([[0, 1, 1, 1], [0, 1]], [[False, True, True, True], [False, True]])
    nll = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 5.0])
    by_token = Loss.over_tokens(nll, batch).mean({"loss": token_units(batch)})
    by_sequence = Loss.over_sequences(batch.sum_by_sequence(nll), batch).mean({"loss": batch.weight.sum()})
    assert (float(by_token), float(by_sequence)) == (2.0, 4.0)  # 8 / 4 tokens, (3 + 5) / 2 sequences


def test_means_add_up_over_units_not_over_batches() -> None:
    right = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    ones = torch.ones(7)
    for size in (1, 2, 3, 7):
        parts = [Mean.of(right[i : i + size], ones[i : i + size]) for i in range(0, 7, size)]
        assert float(sum(parts[1:], parts[0]).value()) == pytest.approx(4 / 7)


def test_a_mean_over_nothing_is_zero() -> None:
    assert float(Mean.of(torch.tensor([math.nan]), torch.tensor([0.0])).value()) == 0.0


def test_a_term_named_twice_is_refused() -> None:
    loss = Loss({"loss": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="named twice"):
        _ = loss | loss
