"""Flat batches: cutting, joining and summing lose nothing and mix nothing."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch, concatenate
from alignlab.stats import Mean, TokenStats

ROWS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
MASKS = [[False, True, True, True], [False, True], [True, False, True]]


def same(a: Batch, b: Batch) -> bool:
    tensors = ("tokens", "sequence_id", "position", "response_mask", "unit", "weight")
    kinds = ("per_token", "per_sequence", "per_unit")
    extras = all(torch.equal(getattr(a, d)[k], getattr(b, d)[k]) for d in kinds for k in getattr(a, d))
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
    batch = batch.with_sequences(reward=torch.arange(float(batch.num_sequences)))
    batch = batch.with_units(margin=torch.arange(float(batch.num_units)))
    parts = batch.micro_batches(budget)
    assert same(concatenate(parts), batch)
    assert all(p.num_tokens <= budget or p.num_units == 1 for p in parts)


@settings(max_examples=20, deadline=None)
@given(lengths, st.integers(1, 4))
def test_shards_hold_every_pair_once(sizes: list[int], world: int) -> None:
    rows = [[i] * n for i, n in enumerate(sizes)]
    batch = PreferenceBatch.of(rows, [[True] * n for n in sizes])
    firsts = [int(s.tokens[p]) for r in range(world) for s in [batch.shard(r, world)] for p in _starts(s)]
    assert sorted(firsts) == list(range(len(sizes)))


def _starts(batch: Batch) -> list[int]:
    ends: Tensor = batch.lengths().cumsum(0)
    return (ends - batch.lengths()).tolist()


def test_lists_stay_whole_whatever_their_length() -> None:
    batch = PreferenceBatch.of([[1, 2]] * 5, [[False, True]] * 5, unit=[0, 0, 0, 1, 1])
    assert [p.num_sequences for p in batch.micro_batches(4)] == [3, 2]
    assert batch.rank().tolist() == [0, 1, 2, 0, 1]
    assert batch.sum_by_unit(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).tolist() == [6.0, 9.0]
    back = batch.select_units([1, 0])
    assert (back.unit.tolist(), back.rank().tolist()) == ([0, 0, 1, 1, 1], [0, 1, 0, 1, 2])
    with pytest.raises(ValueError, match=r"chosen\(\) and rejected\(\) need pairs, and its 2 units hold 5 answers"):
        batch.chosen(torch.zeros(5))


def test_groups_of_joined_batches_stay_apart() -> None:
    batch = RolloutBatch.of([[1, 2]] * 3, [[False, True]] * 3).with_sequences(group=torch.tensor([0, 0, 1]))
    assert concatenate([batch, batch]).group.tolist() == [0, 0, 1, 2, 2, 3]


def test_samples_become_pairs_with_all_that_belongs_to_them() -> None:
    rollouts = RolloutBatch.of(
        [[1, 2], [3, 4, 5], [6, 7], [8, 9]], [[False, True]] * 1 + [[False, True, True]] + [[False, True]] * 2
    )
    rollouts = rollouts.with_tokens(reference_logp=torch.arange(9.0)).with_sequences(
        reward=torch.tensor([1.0, 2, 3, 4])
    )
    pairs = rollouts.as_pairs([(1, 0), (3, 2)], torch.tensor([1.0, 0.5]))
    assert pairs.tokens.tolist() == [3, 4, 5, 1, 2, 8, 9, 6, 7]
    assert pairs.reference_logp.tolist() == [2.0, 3, 4, 0, 1, 7, 8, 5, 6]
    assert pairs.chosen(pairs.sequence("reward")).tolist() == [2.0, 4.0]
    assert (pairs.unit.tolist(), pairs.weight.tolist()) == ([0, 0, 1, 1], [1.0, 0.5])


def test_answers_to_other_prompts_weigh_nothing_and_are_not_trained() -> None:
    rows, masks = [[1, 2], [1, 3], [4, 5], [4, 6]], [[False, True]] * 4
    batch = LabelledBatch.of(rows, masks, unit=[0, 0, 1, 1]).with_units(desirable=torch.tensor([1.0, 0.0]))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert (batch.answer(x).tolist(), batch.mismatched(x).tolist()) == ([1.0, 3.0], [2.0, 4.0])
    assert batch.weight_by_token().tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    trained = batch.trained()
    assert (trained.tokens.tolist(), trained.desirable.tolist()) == ([1, 2, 4, 5], [1.0, 0.0])


MALFORMED = {
    "sequence_id must count the sequences from 0": {"sequence_id": torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2])},
    "position must count the tokens": {"position": torch.tensor([0, 1, 2, 2, 0, 1, 0, 1, 2])},
    "response_mask is true at position 0": {"response_mask": torch.ones(9, dtype=torch.bool)},
    "old_logp must have one entry per token, 9, got shape \\(8,\\)": {"per_token": {"old_logp": torch.zeros(8)}},
    "unit must number the 3 units from 0": {"unit": torch.tensor([0, 2, 2])},
    "its tokens make 3 sequences, and unit has 2 entries": {"unit": torch.tensor([0, 1]), "weight": torch.ones(2)},
    "reward must have one entry per sequence, 3, got shape \\(9,\\)": {"per_sequence": {"reward": torch.zeros(9)}},
    "margin must have one entry per unit, 3, got shape \\(\\)": {"per_unit": {"margin": torch.tensor(1.0)}},
    "names must be one per sequence, 3, or none, got 2": {"names": ("a", "b")},
    "temperature must be > 0, got 0": {"temperature": 0.0},
}


@pytest.mark.parametrize("message", list(MALFORMED))
def test_a_malformed_batch_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=f"^TokenBatch: {message}"):
        replace(TokenBatch.of(ROWS, MASKS), **MALFORMED[message])


def test_rows_and_masks_must_fit() -> None:
    with pytest.raises(ValueError, match="TokenBatch: row 1 has 2 tokens and its mask 1 entries"):
        TokenBatch.of(ROWS, [MASKS[0], [True], MASKS[2]])
    with pytest.raises(ValueError, match="3 rows and 2 masks"):
        TokenBatch.of(ROWS, MASKS[:2])
    with pytest.raises(ValueError, match="unit 1 has one answer; a preference needs two or more"):
        PreferenceBatch.of(ROWS, MASKS)


def test_batches_of_different_temperature_or_extras_are_not_joined() -> None:
    batch = TokenBatch.of(ROWS, MASKS)
    with pytest.raises(ValueError, match=r"got TokenBatch at temperature 1\.0 and TokenBatch at temperature 0\.5"):
        concatenate([batch, replace(batch, temperature=0.5)])
    with pytest.raises(ValueError, match=r"same per_token extras, got \[\] and \['x'\]"):
        concatenate([batch, batch.with_tokens(x=torch.zeros(9))])


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


def test_means_add_up_over_units_not_over_batches() -> None:
    right = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    ones = torch.ones(7)
    for size in (1, 2, 3, 7):
        parts = [Mean.of(right[i : i + size], ones[i : i + size]) for i in range(0, 7, size)]
        assert float(sum(parts[1:], parts[0]).value()) == pytest.approx(4 / 7)


def test_a_mean_over_nothing_is_zero() -> None:
    assert float(Mean.of(torch.tensor([math.nan]), torch.tensor([0.0])).value()) == 0.0
