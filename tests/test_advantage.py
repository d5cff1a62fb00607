"""Token rewards, groups, generalised advantages and whitening, by tables worked out on paper."""

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from alignlab.advantage import (
    Advantage,
    credited,
    generalized_advantage,
    group_mean,
    last_response_token,
    others_mean,
    to_tokens,
    token_rewards,
    whiten,
    without_signal,
)
from alignlab.batch import RolloutBatch

# Two answers: one of 3 tokens that stopped, worth 2, and one of 2 tokens that did not, worth 1 (less a penalty of 3).
MASK = [[False, False, True, True, True], [False, True, True]]
OLD = [0.0, 0.0, -1.0, -2.0, -0.5, 0.0, -1.0, -1.0]
REFERENCE = [0.0, 0.0, -1.5, -1.0, -0.5, 0.0, -2.0, -3.0]
VALUE = [0.0, 0.0, 0.5, 1.0, 1.5, 0.0, 0.0, -1.0]
REWARD = [0.0, 0.0, -0.05, 0.1, 2.0, 0.0, -0.1, -2.2]  # beta 0.1
ADVANTAGE = [0.0, 0.0, 0.875, 0.85, 0.5, 0.0, -1.7, -1.2]  # gamma 1, lam 0.5


def table(junk: float | None = None) -> RolloutBatch:
    batch = RolloutBatch.of([[1, 2, 3, 4, 0], [1, 3, 3]], MASK)
    extras = {"old_logp": OLD, "reference_logp": REFERENCE, "old_value": VALUE}
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in extras.items()}
    if junk is not None:
        tensors = {k: torch.where(batch.response_mask, v, junk) for k, v in tensors.items()}
    batch = batch.with_tokens(**tensors)
    return batch.with_sequences(reward=torch.tensor([2.0, 1.0]), finished=torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("junk", [None, 100.0, math.nan])
def test_reward_is_paid_on_every_token_and_at_the_last(junk: float | None) -> None:
    paid = token_rewards(table(junk), beta=0.1, missing_eos_penalty=3.0)
    assert paid.tolist() == pytest.approx(REWARD)


def test_the_finished_extra_is_read_only_where_a_penalty_asks_for_it() -> None:
    batch = RolloutBatch.of([[1, 2]], [[False, True]])
    batch = batch.with_tokens(old_logp=torch.zeros(2), reference_logp=torch.zeros(2))
    batch = batch.with_sequences(reward=torch.tensor([0.5]))
    assert token_rewards(batch, beta=0.1, missing_eos_penalty=0.0).tolist() == [0.0, 0.5]
    with pytest.raises(KeyError, match="finished"):
        token_rewards(batch, beta=0.1, missing_eos_penalty=1.0)


def test_the_sum_of_rewards_is_the_answers_reward_less_its_kl() -> None:
    batch = table()
    total = batch.sum_by_sequence(token_rewards(batch, beta=0.1, missing_eos_penalty=3.0))
    kl = batch.sum_by_sequence(batch.old_logp - batch.reference_logp)
    assert total.tolist() == pytest.approx((torch.tensor([2.0, -2.0]) - 0.1 * kl).tolist())


def test_last_response_token_is_the_last_of_each_mask() -> None:
    batch = RolloutBatch.of([[1] * 5, [1] * 3, [1] * 2], [[False, True, True, False, False], MASK[1], [False, False]])
    assert last_response_token(batch).nonzero()[:, 0].tolist() == [2, 7]


def test_generalised_advantage_by_the_table() -> None:
    batch = table()
    rewards, values = torch.tensor(REWARD).double(), torch.tensor(VALUE).double()
    assert generalized_advantage(rewards, values, batch, 1.0, 0.5).tolist() == pytest.approx(ADVANTAGE)


def test_discount_and_lambda_by_hand() -> None:
    batch = RolloutBatch.of([[1, 2, 3]], [[False, True, True]])
    rewards, values = torch.tensor([9.0, 1.0, 2.0]), torch.tensor([9.0, 0.5, 3.0])
    # delta = (1 + 0.9 * 3 - 0.5, 2 - 3) = (3.2, -1); A = (3.2 - 0.9 * 0.5, -1)
    found = generalized_advantage(rewards, values, batch, gamma=0.9, lam=0.5)
    assert found.tolist() == pytest.approx([0.0, 2.75, -1.0])


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_lambda_zero_and_one_close(lam: float) -> None:
    batch = table()
    rewards, values = torch.tensor(REWARD).double(), torch.tensor(VALUE).double()
    found = generalized_advantage(rewards, values, batch, 1.0, lam)
    to_go = [0, 0, 2.05, 2.1, 2.0, 0, -2.3, -2.2]
    following = [0, 0, 0.95, 1.6, 2.0, 0, -1.1, -2.2]
    expected = torch.tensor(to_go if lam else following).double() - values
    assert torch.allclose(found, expected)


def test_advantage_skips_tokens_that_the_policy_did_not_write() -> None:
    """A tool's words between two turns carry neither reward nor value."""
    whole = RolloutBatch.of([[1, 2, 3]], [[False, True, True]])
    broken = RolloutBatch.of([[1, 2, 7, 7, 3]], [[False, True, False, False, True]])
    short = generalized_advantage(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.3, 0.4]), whole, 0.9, 0.8)
    rewards, values = torch.tensor([0.0, 1.0, 5.0, 5.0, 2.0]), torch.tensor([0.0, 0.3, 5.0, 5.0, 0.4])
    long = generalized_advantage(rewards, values, broken, 0.9, 0.8)
    assert long.tolist() == pytest.approx([0.0, float(short[1]), 0.0, 0.0, float(short[2])])


def test_advantage_does_not_depend_on_neighbours() -> None:
    batch = table()
    rewards, values = torch.tensor(REWARD).double(), torch.tensor(VALUE).double()
    whole = generalized_advantage(rewards, values, batch, 1.0, 0.95)
    kept = batch.with_tokens(r=rewards, v=values)
    for s in range(2):
        alone = kept.select_units([s])
        found = generalized_advantage(alone.token("r"), alone.token("v"), alone, 1.0, 0.95)
        assert torch.equal(found, whole[batch.sequence_id == s])


def test_empty_buffer_gives_empty_advantages() -> None:
    batch = table().select_units([])
    assert generalized_advantage(torch.zeros(0), torch.zeros(0), batch, 1.0, 0.95).shape == (0,)
    assert whiten(torch.zeros(0), batch.weight_by_token()).shape == (0,)


def test_whitening_has_mean_zero_and_variance_one_over_weights() -> None:
    x = torch.tensor([1.0, 2.0, 6.0, 777.0], dtype=torch.float64)
    weight = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    found = whiten(x, weight, eps=0.0)  # mean 2.5, variance (2 * 1.5^2 + 0.5^2 + 3.5^2) / 4 = 4.25
    assert found.tolist() == pytest.approx([-1.5 / 4.25**0.5, -0.5 / 4.25**0.5, 3.5 / 4.25**0.5, 0.0])


def test_whitening_equal_values_gives_zeros_not_noise() -> None:
    found = whiten(torch.full((4,), 0.1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert found.abs().max() < 1e-3


def test_whitening_nothing_gives_zeros() -> None:
    assert whiten(torch.tensor([math.nan, 1.0]), torch.zeros(2)).tolist() == [0.0, 0.0]


def test_whitening_ignores_nan_where_the_weight_is_zero() -> None:
    found = whiten(torch.tensor([1.0, -1.0, math.nan]), torch.tensor([1.0, 1.0, 0.0]))
    assert found.tolist() == pytest.approx([1.0, -1.0, 0.0])


# ---- groups ---------------------------------------------------------------------------------------------------------
def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_means_of_a_group_and_of_the_others_in_it() -> None:
    """Groups need be neither in order nor next to each other; a number may be left out."""
    x, group = doubles(1, 10, 2, 6, 20, 5), torch.tensor([3, 0, 3, 3, 0, 7])
    assert group_mean(x, group).tolist() == pytest.approx([3, 15, 3, 3, 15, 5])
    assert others_mean(x, group).tolist() == pytest.approx([4, 20, 3.5, 1.5, 10, 0]), "0 where it is alone"


def test_means_of_nothing() -> None:
    nothing, group = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert group_mean(nothing, group).shape == others_mean(nothing, group).shape == (0,)
    assert without_signal(nothing, group).shape == (0,)


@pytest.mark.parametrize(
    ("values", "equal"),
    [
        ((0.3, 0.1 + 0.2), True),
        ((0.0, 0.0), True),
        ((0.0, 1e-7), True),
        ((0.0, 1e-5), False),
        ((1e15, 1e15 + 1), True),
        ((1e15, 1e15 * (1 + 1e-5)), False),
        ((-1e15, 1e15), False),
        ((-2.0, -2.0 * (1 + 1e-8)), True),
    ],
)
def test_a_group_has_no_signal_where_its_values_are_equal_up_to_rounding(
    values: tuple[float, float], equal: bool
) -> None:
    """Measured at the largest magnitude of the group, or at 1; of each group on its own."""
    x, group = doubles(*values, 0.0, 1.0), torch.tensor([0, 0, 1, 1])
    assert without_signal(x, group).tolist() == [equal, equal, False, False]
    assert without_signal(x.float(), group).tolist() == [equal, equal, False, False]


def test_the_tolerance_is_the_callers() -> None:
    x, group = doubles(1.0, 1.05, 3.0), torch.tensor([0, 0, 1])
    assert without_signal(x, group, tolerance=0.1).tolist() == [True, True, True], "one sample has no spread"
    assert without_signal(x, group, tolerance=0.0).tolist() == [False, False, True]


def test_a_value_per_sample_goes_to_its_response_tokens() -> None:
    found = to_tokens(torch.tensor([2.0, -1.0]), table())
    assert found.tolist() == [0.0, 0.0, 2.0, 2.0, 2.0, 0.0, -1.0, -1.0]


# ---- what an advantage may return -----------------------------------------------------------------------------------
class Told(Advantage):
    """Returns what it is told."""

    VERSION: ClassVar[str] = "1"

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        found: RolloutBatch = self.returned(rollouts)
        return found


def test_what_is_credited_is_the_buffer_itself_with_its_advantages() -> None:
    batch = table()
    found = credited(Told(lambda r: r.with_tokens(advantage=torch.arange(8.0))), batch)
    assert found.advantage.tolist() == list(range(8))
    assert found.per_token.keys() == {*batch.per_token, "advantage"}
    assert torch.equal(found.sequence("reward"), batch.sequence("reward"))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda r: None, "Told: must return the rollout batch with its advantages, got a NoneType"),
        (
            lambda r: r.as_pairs([(0, 1)]),
            "Told: must return the rollout batch with its advantages, got a PreferenceBatch",
        ),
        (lambda r: r, r"Told: must return the same tokens with the extra `advantage`: rollouts\.with_tokens"),
        (lambda r: r.with_tokens(advantage=torch.zeros(8)).select_units([1]), "Told: must return the same tokens"),
        (lambda r: r.with_tokens(advantage=torch.full((8,), math.nan)), "Told: 5 of its advantages are not finite"),
    ],
)
def test_anything_else_is_refused_by_name(returned: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        credited(Told(returned), table())


def test_what_is_masked_may_be_anything() -> None:
    batch = table()
    junk = torch.where(batch.response_mask, 1.0, math.nan)
    assert credited(Told(lambda r: r.with_tokens(advantage=junk)), batch).num_tokens == 8
