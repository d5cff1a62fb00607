"""Group-relative and leave-one-out advantages by tables worked out on paper."""

import math
from typing import Any

import pytest
import torch
from alignlab_grpo import GroupRelative, LeaveOneOut, WhitenedReturns
from torch import Tensor

from alignlab.advantage import credited
from alignlab.batch import RolloutBatch

NAN = float("nan")


def buffer(reward: list[float], group: list[int], dtype: torch.dtype = torch.float64) -> RolloutBatch:
    """Answers of one, two, three, ... tokens to prompts of two; what is not scored is NaN."""
    lengths = range(1, len(reward) + 1)
    batch = RolloutBatch.of([[1, 2] + [3] * n for n in lengths], [[False, False] + [True] * n for n in lengths])
    zero = torch.zeros(batch.num_tokens, dtype=dtype).masked_fill(~batch.response_mask, NAN)
    batch = batch.with_tokens(old_logp=zero, reference_logp=zero)
    finished = torch.ones(len(reward), dtype=dtype)
    return batch.with_sequences(reward=torch.tensor(reward, dtype=dtype), group=torch.tensor(group), finished=finished)


def of_answers(advantage: Any, rollouts: RolloutBatch) -> list[float]:
    """The advantage of each answer: the same at all of its tokens, and 0 at those of its prompt."""
    found: Tensor = credited(advantage, rollouts).advantage
    assert found.dtype == rollouts.sequence("reward").dtype
    assert not found[~rollouts.response_mask].any()
    rows = [found[(rollouts.sequence_id == s) & rollouts.response_mask] for s in range(rollouts.num_sequences)]
    assert all(torch.equal(row, row[:1].expand_as(row)) for row in rows)
    return [float(row[0]) for row in rows]


# ---- relative to the group ------------------------------------------------------------------------------------------
def test_rewards_are_standardised_within_their_group() -> None:
    """(1, 2, 6) has mean 3 and variance 14/3; (0, 1) has mean 0.5 and deviation 0.5."""
    found = of_answers(GroupRelative(eps=0.0), buffer([1, 2, 6, 0, 1], [0, 0, 0, 1, 1]))
    deviation = math.sqrt(14 / 3)
    assert found == pytest.approx([-2 / deviation, -1 / deviation, 3 / deviation, -1.0, 1.0], abs=1e-14)
    found = of_answers(GroupRelative(eps=0.25), buffer([0, 1], [0, 0]))
    assert found == pytest.approx([-0.5 / 0.75, 0.5 / 0.75], abs=1e-14)


def test_without_scaling_they_stay_in_reward_units_whatever_eps_is() -> None:
    found = of_answers(GroupRelative(scale=False, eps=5.0), buffer([1, 2, 6, 0, 1], [0, 0, 0, 1, 1]))
    assert found == pytest.approx([-2.0, -1.0, 3.0, -0.5, 0.5], abs=1e-14)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize(
    "reward",
    [
        [0.3, 0.1 + 0.2],
        [-0.7, -0.7 * (1 + 1e-7)],
        [1e15 + 1, 1e15],
        [1e25, 1e25 * (1 + 1e-8)],
        [0.0, 1e-9],
    ],
)
def test_rewards_equal_up_to_rounding_teach_exactly_nothing(reward: list[float], scale: bool) -> None:
    """Divided by their tiny deviation, rounding errors would be advantages of 1."""
    assert of_answers(GroupRelative(scale=scale), buffer(reward, [0, 0])) == [0.0, 0.0]
    single = buffer(reward, [0, 0], torch.float32)
    assert of_answers(GroupRelative(scale=scale), single) == [0.0, 0.0]


def test_a_group_without_signal_leaves_the_others_alone() -> None:
    found = of_answers(GroupRelative(eps=0.0), buffer([0.3, 0.1 + 0.2, 0, 1], [0, 0, 1, 1]))
    assert found == pytest.approx([0.0, 0.0, -1.0, 1.0], abs=1e-14)


def test_rewards_whose_squares_overflow_are_standardised_all_the_same() -> None:
    found = of_answers(GroupRelative(), buffer([1e25, 3e25], [0, 0], torch.float32))
    assert found == pytest.approx([-1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("advantage", [GroupRelative(), GroupRelative(scale=False), LeaveOneOut()])
def test_an_answer_alone_in_its_group_teaches_nothing(advantage: Any) -> None:
    assert of_answers(advantage, buffer([5.0, 0.0, 1.0], [0, 1, 1]))[0] == 0.0


@pytest.mark.parametrize("advantage", [GroupRelative(), LeaveOneOut()])
def test_neither_the_order_of_groups_nor_of_their_answers_matters(advantage: Any) -> None:
    reward, group = [1.0, 2.0, 6.0, 0.0, 1.0, -3.0], [0, 0, 0, 1, 1, 2]
    expected = of_answers(advantage, buffer(reward, group))
    order = [4, 1, 5, 0, 3, 2]
    found = of_answers(advantage, buffer([reward[i] for i in order], [[7, 2, 4][group[i]] for i in order]))
    assert found == pytest.approx([expected[i] for i in order], abs=1e-14)


# ---- leave one out --------------------------------------------------------------------------------------------------
def test_the_baseline_is_the_mean_of_the_others() -> None:
    """Of (1, 2, 6): less (4, 3.5, 1.5); of (0, 1): less (1, 0)."""
    found = of_answers(LeaveOneOut(), buffer([1, 2, 6, 0, 1], [0, 0, 0, 1, 1]))
    assert found == pytest.approx([-3.0, -1.5, 4.5, -1.0, 1.0], abs=1e-14)


def with_kl(rollouts: RolloutBatch, kl: list[float]) -> RolloutBatch:
    """The buffer with this divergence of each answer, spread over its tokens."""
    each = torch.tensor(kl, dtype=torch.float64) / rollouts.response_lengths()
    return rollouts.with_tokens(reference_logp=rollouts.old_logp - each[rollouts.sequence_id])


def test_the_divergence_and_a_missing_stop_are_paid_for() -> None:
    """Paid: 1 - 0.5 * 2 = 0 and 3 - 0.5 * (-1) - 0.7 = 2.8."""
    rollouts = with_kl(buffer([1, 3], [0, 0]), [2.0, -1.0])
    rollouts = rollouts.with_sequences(finished=torch.tensor([1.0, 0.0], dtype=torch.float64))
    found = of_answers(LeaveOneOut(beta=0.5, missing_eos_penalty=0.7), rollouts)
    assert found == pytest.approx([-2.8, 2.8], abs=1e-14)


def test_equal_rewards_with_another_divergence_do_teach() -> None:
    found = of_answers(LeaveOneOut(beta=0.5), with_kl(buffer([1, 1], [0, 0]), [0.0, 2.0]))
    assert found == pytest.approx([1.0, -1.0], abs=1e-14)


@pytest.mark.parametrize("reward", [[0.3, 0.1 + 0.2], [1e15 + 1, 1e15], [1e25, 1e25 * (1 + 1e-8)]])
def test_pay_equal_up_to_rounding_teaches_exactly_nothing(reward: list[float]) -> None:
    assert of_answers(LeaveOneOut(), buffer(reward, [0, 0])) == [0.0, 0.0]
    assert of_answers(LeaveOneOut(), buffer(reward, [0, 0], torch.float32)) == [0.0, 0.0]


# ---- whitened returns ------------------------------------------------------------------------------------------------
def test_returns_are_what_is_still_to_be_paid_whitened_over_all_tokens() -> None:
    """Returns 2; and with k1 of 0.5 per token, beta 1: 1 - 0.5 - 0.5 = 0, then 0.5. Mean 2.5 / 3 over three tokens."""
    rollouts = with_kl(buffer([2, 1], [0, 1]), [0.0, 1.0])
    found = credited(WhitenedReturns(beta=1.0), rollouts).advantage
    returns = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    centred = returns - returns.mean()
    torch.testing.assert_close(found[rollouts.response_mask], centred / (centred.square().mean() + 1e-8).sqrt())
    assert not found[~rollouts.response_mask].any()


def test_returns_pay_for_a_missing_stop_at_the_last_token() -> None:
    """Returns 1 and 1 - 3, of one and two tokens: deviations 2 and -1 from the mean of -1, and a spread of sqrt(2)."""
    rollouts = buffer([1, 1], [0, 1]).with_sequences(finished=torch.tensor([1.0, 0.0], dtype=torch.float64))
    found = of_answers(WhitenedReturns(missing_eos_penalty=3.0), rollouts)
    assert found == pytest.approx([math.sqrt(2), -math.sqrt(0.5)], abs=1e-8)


def test_equal_returns_teach_nothing() -> None:
    assert of_answers(WhitenedReturns(), buffer([2, 2, 2], [0, 1, 2])) == pytest.approx([0.0] * 3, abs=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupRelative(eps=-1e-3), r"GroupRelative: eps must be >= 0, got -0\.001"),
        (lambda: LeaveOneOut(beta=-1.0), r"LeaveOneOut: beta must be >= 0, got -1\.0; it is a price"),
        (lambda: LeaveOneOut(missing_eos_penalty=-1.0), "LeaveOneOut: missing_eos_penalty must be >= 0"),
        (lambda: WhitenedReturns(beta=-1.0), r"WhitenedReturns: beta must be >= 0, got -1\.0; it is a price"),
    ],
)
def test_arguments_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
