"""The clipped losses: closed forms on a handful of tokens."""

import math

import pytest
import torch
from alignlab_ppo import PPO
from torch import Tensor

from alignlab.batch import RolloutBatch, concatenate
from alignlab.objective import Loss
from alignlab.stats import TokenStats

MASK = [[False, False, True, True, True], [False, True, True]]
VALID = torch.tensor([m for row in MASK for m in row])
CLIPPED = math.log(1.5)


def rollouts(**extras: list[float]) -> RolloutBatch:
    """Two answers, of 3 and of 2 response tokens; extras are given for the 5 response tokens."""
    batch = RolloutBatch.of([[1, 2, 3, 4, 0], [1, 3, 3]], MASK)
    known = {"old_logp": [-1.0] * 5, "old_value": [0.0] * 5, "advantage": [0.0] * 5, "returns": [0.0] * 5} | extras
    return batch.with_tokens(**{k: spread(v) for k, v in known.items()})


def spread(values: list[float]) -> Tensor:
    full = torch.zeros(8, dtype=torch.float64)
    full[VALID] = torch.tensor(values, dtype=torch.float64)
    return full


def stats(logp: list[float] | None = None, value: list[float] | None = None) -> TokenStats:
    found = {"logp": logp or [-1.0] * 5, "value": value or [0.0] * 5, "entropy": [0.5] * 5}
    return TokenStats({k: spread(v).requires_grad_() for k, v in found.items()})


def test_at_ratio_one_the_policy_gradient_is_minus_the_advantage() -> None:
    now, batch = stats(), rollouts(advantage=[1.0, -2.0, 3.0, 0.5, -0.25])
    loss = PPO()(now, batch)
    loss.terms["policy"].backward()
    assert loss.terms["policy"].item() == pytest.approx(-2.25)
    assert torch.equal(now.logp.grad, -batch.advantage)


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "loss", "gradient"),
    [
        (1.0, 0.1, -math.exp(0.1), -math.exp(0.1)),  # inside: free
        (1.0, CLIPPED, -1.2, 0.0),  # good and already raised enough: no further
        (-1.0, CLIPPED, 1.5, 1.5),  # bad but raised: pulled back in full
        (1.0, -CLIPPED, -1 / 1.5, -1 / 1.5),  # good but lowered: pulled back in full
        (-1.0, -CLIPPED, 0.8, 0.0),  # bad and already lowered enough
    ],
)
def test_clipping_by_the_table(advantage: float, log_ratio: float, loss: float, gradient: float) -> None:
    now = stats(logp=[-1.0 + log_ratio, -1.0, -1.0, -1.0, -1.0])
    found = PPO(clip=0.2)(now, rollouts(advantage=[advantage, 0.0, 0.0, 0.0, 0.0]))
    found.terms["policy"].backward()
    assert found.terms["policy"].item() == pytest.approx(loss)
    assert now.logp.grad[2].item() == pytest.approx(gradient)
    assert float(found.metrics["clip_fraction"].value()) == pytest.approx(0.2 if gradient == 0 else 0.0)


def test_a_huge_ratio_stays_finite_and_is_cut_at_e_to_the_20() -> None:
    now = stats(logp=[500.0, -900.0, -1.0, -1.0, -1.0])
    loss = PPO()(now, rollouts(advantage=[-1.0, -1.0, 0.0, 0.0, 0.0]))
    loss.terms["policy"].backward()
    assert loss.terms["policy"].item() == pytest.approx(math.exp(20) + 0.8)
    assert bool(torch.isfinite(now.logp.grad).all())


@pytest.mark.parametrize(
    ("value", "old", "returns", "loss", "gradient"),
    [
        (0.1, 0.0, 1.0, 0.5 * 0.81, -0.9),  # within the clip: the plain squared error
        (0.5, 0.0, 1.0, 0.5 * 0.64, 0.0),  # came far towards the return: held at old + 0.2
        (-0.5, 0.0, 1.0, 0.5 * 2.25, -1.5),  # went away from the return: pulled back in full
        (2.0, 0.0, 0.1, 0.5 * 3.61, 1.9),  # shot beyond: the larger error counts
    ],
)
def test_value_clipping_by_the_table(value: float, old: float, returns: float, loss: float, gradient: float) -> None:
    now = stats(value=[value, 0.0, 0.0, 0.0, 0.0])
    batch = rollouts(old_value=[old, 0.0, 0.0, 0.0, 0.0], returns=[returns, 0.0, 0.0, 0.0, 0.0])
    found = PPO(value_clip=0.2, value_coefficient=0.1)(now, batch)
    found.terms["value"].backward()
    assert found.terms["value"].item() == pytest.approx(0.1 * loss)
    assert now.value.grad[2].item() == pytest.approx(0.1 * gradient)


def test_without_value_clip_the_value_term_is_the_squared_error() -> None:
    found = PPO(value_clip=None, value_coefficient=1.0)(stats(value=[3.0] * 5), rollouts(returns=[1.0] * 5))
    assert found.terms["value"].item() == pytest.approx(5 * 0.5 * 4.0)
    assert float(found.metrics["value_clip_fraction"].value()) == 0.0


def test_entropy_is_paid_for_in_the_policy_term_only_when_asked() -> None:
    now, batch = stats(), rollouts()
    assert PPO()(now, batch).terms["policy"].item() == 0.0
    assert PPO(entropy_coefficient=0.1)(now, batch).terms["policy"].item() == pytest.approx(-0.1 * 0.5 * 5)


def test_metrics_are_means_over_response_tokens() -> None:
    now = stats(logp=[-0.5, -1.0, -1.0, -1.0, -1.0], value=[1.0, 2.0, 3.0, 4.0, 5.0])
    found = {k: float(m.value()) for k, m in PPO()(now, rollouts(returns=[1.0, 1.0, 1.0, 1.0, 1.0])).metrics.items()}
    assert found["ratio"] == pytest.approx((math.exp(0.5) + 4) / 5)
    assert found["approx_kl"] == pytest.approx((math.exp(0.5) - 1.5) / 5)
    assert found["entropy"] == pytest.approx(0.5)
    assert (found["value_error"], found["value_error_squared"]) == pytest.approx((2.0, 6.0))
    assert (found["returns"], found["returns_squared"]) == pytest.approx((1.0, 1.0))


def gradients(parts: list[RolloutBatch], logp: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """As the stage does it: units of the whole step first, then one backward a part."""
    ours, objective = (logp.clone().requires_grad_(), value.clone().requires_grad_()), PPO()
    units = {k: sum(objective.units(p)[k] for p in parts) for k in ("policy", "value")}
    for part in parts:
        at = part.token("at").long()
        now = TokenStats({"logp": ours[0][at], "value": ours[1][at], "entropy": torch.zeros_like(part.advantage)})
        objective(now, part).mean(units).backward()
    return ours[0].grad, ours[1].grad


def test_gradient_does_not_depend_on_micro_batches() -> None:
    torch.manual_seed(0)
    pieces = []
    for k in range(4):
        names = ("old_logp", "old_value", "advantage", "returns")
        pieces.append(rollouts(**{n: torch.randn(5).tolist() for n in names}).with_tokens(at=torch.arange(8.0) + 8 * k))
    whole = concatenate(pieces)
    logp, value = torch.randn(32, dtype=torch.float64), torch.randn(32, dtype=torch.float64)
    expected = gradients([whole], logp, value)
    empty = whole.select_units([])
    for parts in (whole.micro_batches(8), whole.micro_batches(14), [whole.shard(0, 2), whole.shard(1, 2), empty]):
        assert len(parts) > 1
        for found, wanted in zip(gradients(parts, logp, value), expected, strict=True):
            assert torch.allclose(found, wanted, atol=1e-14)


@pytest.mark.parametrize("junk", [100.0, math.nan, -math.inf])
def test_masked_values_change_nothing_to_the_bit(junk: float) -> None:
    def run(fill: float) -> tuple[Loss, TokenStats]:
        batch = rollouts(advantage=[1.0, -2.0, 3.0, 0.5, -0.25], returns=[0.3] * 5)
        batch = batch.with_tokens(**{k: torch.where(VALID, v, fill) for k, v in batch.per_token.items()})
        plain = stats(logp=[-0.7, -1.1, -1.0, -2.0, -0.1], value=[0.4, -0.2, 0.1, 0.0, 0.3])
        now = TokenStats({k: torch.where(VALID, v, fill).detach().requires_grad_() for k, v in plain.values.items()})
        loss = PPO(entropy_coefficient=0.1)(now, batch)
        (loss.terms["policy"] + loss.terms["value"]).backward()
        return loss, now

    (loss, now), (expected, wanted) = run(junk), run(0.0)
    assert all(torch.equal(loss.terms[k], expected.terms[k]) for k in loss.terms)
    assert all(torch.equal(loss.metrics[k].value(), expected.metrics[k].value()) for k in loss.metrics)
    assert all(torch.equal(now.values[k].grad, wanted.values[k].grad) for k in now.values)


def test_all_masked_gives_zero_loss_gradient_and_units() -> None:
    batch = RolloutBatch.of([[1, 2]], [[False, False]])
    batch = batch.with_tokens(**{k: torch.zeros(2) for k in PPO.reads})
    now = TokenStats({k: torch.zeros(2, requires_grad=True) for k in PPO.needs})
    loss = PPO()(now, batch)
    mean = loss.mean(PPO().units(batch))
    mean.backward()
    assert mean.item() == 0.0
    assert now.logp.grad.tolist() == [0.0, 0.0] == now.value.grad.tolist()
    assert PPO().units(batch)["policy"].item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"clip": 0.0}, "clip"), ({"value_clip": -1.0}, "value_clip"), ({"value_coefficient": -1.0}, "value_coefficient")],
)
def test_bad_arguments_are_refused(arguments: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=f"PPO: {word}"):
        PPO(**arguments)
