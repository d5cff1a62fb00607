"""Closed forms of optima, each against what defines it."""

import pytest
import torch
from torch import Tensor

from alignlab.objective import WeightedSum, Wrapped
from alignlab.optimum import (
    Chosen,
    Credit,
    LengthTilted,
    NoneKnown,
    PolicyGradient,
    PreferenceTilted,
    Stationary,
    Tables,
    Tilted,
    combined,
)
from alignlab.optimum.tables import kl
from alignlab.testing.oracle import World

TABLES = World(prompts=3, seed=5).tables


def bandit(actions: int = 5, seed: int = 0) -> Tables:
    """Answers of one token each."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    reward, reference = draw(1, actions), draw(1, actions).log_softmax(-1)
    return Tables(
        answers=tuple((a,) for a in range(actions)),
        finished=torch.ones(actions, dtype=torch.float64),
        reference=reference,
        reward=reward,
        preference=torch.sigmoid(reward[:, :, None] - reward[:, None, :]),
        teacher=reference,
        data=reference,
    )


def worth(policy: Tensor, tables: Tables, beta: float) -> Tensor:
    """E[r] - beta KL(policy || reference), per prompt."""
    return (policy.exp() * tables.reward).sum(-1) - beta * kl(policy, tables.reference)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_tilted_maximises_reward_less_kl(beta: float) -> None:
    best = Tilted(beta).policy(TABLES)
    # J(pi*) = beta log Z, and J falls by exactly beta KL away from it.
    z = (TABLES.reference + TABLES.reward / beta).logsumexp(-1)
    torch.testing.assert_close(worth(best, TABLES, beta), beta * z)
    other = (best + 0.3 * torch.randn(best.shape, dtype=best.dtype)).log_softmax(-1)
    lost = worth(best, TABLES, beta) - worth(other, TABLES, beta)
    torch.testing.assert_close(lost, Tilted(beta).regret(other, TABLES))


def test_a_penalty_is_taken_off_the_reward_of_unfinished_answers() -> None:
    shift = Tilted(0.5, penalty=1.0).policy(TABLES) - Tilted(0.5).policy(TABLES)
    unfinished = TABLES.finished == 0
    difference = shift[:, unfinished][:, :1] - shift[:, ~unfinished][:, :1]
    torch.testing.assert_close(difference, torch.full_like(difference, -2.0))


def test_ipos_optimum_has_the_wanted_margins() -> None:
    policy = PreferenceTilted(0.4).policy(TABLES)
    ratio = policy - TABLES.reference
    often = (TABLES.preference * TABLES.reference.exp()[:, None, :]).sum(-1)
    margins, wanted = ratio[:, :, None] - ratio[:, None, :], (often[:, :, None] - often[:, None, :]) / 0.4
    torch.testing.assert_close(margins, wanted)


@pytest.mark.parametrize("from_reference", [True, False])
def test_length_tilted_is_a_distribution_with_the_wanted_margins_per_token(from_reference: bool) -> None:
    policy = LengthTilted(2.0, from_reference).policy(TABLES)
    torch.testing.assert_close(policy.logsumexp(-1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    per_token = (policy - TABLES.reference * from_reference) / TABLES.length
    wanted = TABLES.reward / 2.0
    torch.testing.assert_close(per_token - per_token[:, :1], wanted - wanted[:, :1])


def test_k3_in_the_loss_ends_at_beta_reference_over_lambda_less_reward() -> None:
    tables, beta = bandit(), 0.3
    policy = Stationary(beta, "k3", mean_over_answer=False, credit="reward").policy(tables)
    rest = tables.reward + beta * (tables.reference - policy).exp()  # lambda, the same for every answer
    torch.testing.assert_close(rest, rest[:, :1].expand_as(rest))
    assert float(kl(policy, Tilted(beta).policy(tables))) > 0.1


def test_k2_in_the_loss_ends_at_the_tilted_reference_for_answers_of_one_token() -> None:
    tables = bandit()
    policy = Stationary(0.3, "k2", mean_over_answer=False, credit="reward").policy(tables)
    torch.testing.assert_close(policy, Tilted(0.3).policy(tables))


def test_a_group_of_two_that_holds_the_answer_halves_its_credit() -> None:
    tables = bandit()
    half = Stationary(0.3, "k2", mean_over_answer=False, credit="centred").policy(tables)
    torch.testing.assert_close(half, Tilted(0.6).policy(tables))


def test_a_policy_gradient_ends_where_its_advantage_leads() -> None:
    paid, free = Credit("reward", beta=0.2, penalty=1.0), Credit("centred")
    assert combined(PolicyGradient(), paid) == Tilted(0.2, penalty=1.0)
    assert combined(PolicyGradient("answer_mean"), paid) == Tilted(0.2, penalty=1.0)
    assert combined(PolicyGradient("answer_mean", 0.1, "k3"), free) == Stationary(0.1, "k3", True, "centred")
    for gradient, credit in [
        (PolicyGradient(beta=0.1), paid),
        (PolicyGradient(), free),
        (PolicyGradient(), NoneKnown("x")),
    ]:
        assert isinstance(combined(gradient, credit), NoneKnown)


def test_a_variation_declares_no_optimum_and_a_sum_only_a_common_one() -> None:
    from alignlab_dpo import DPO, IPO

    assert isinstance(Wrapped(DPO()).optimum(), NoneKnown)
    assert WeightedSum({"a": DPO(0.2), "b": DPO(0.2)}).optimum() == Tilted(0.2)
    assert isinstance(WeightedSum({"a": DPO(0.2), "b": IPO(0.2)}).optimum(), NoneKnown)
    assert isinstance(WeightedSum({"a": DPO(0.2), "b": DPO(0.2)}, {"b": -1.0}).optimum(), NoneKnown)


def test_chosen_answers_of_pairs_are_a_distribution() -> None:
    """Of every two answers one is chosen, so that twice the shares add up to 1."""
    often = (TABLES.preference * TABLES.reference.exp()[:, None, :]).sum(-1)
    torch.testing.assert_close(Chosen().policy(TABLES), TABLES.reference + (2 * often).log())
