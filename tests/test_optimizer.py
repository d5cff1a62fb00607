"""Schedules, groups and settings of optimizers."""

import pytest
import torch
from torch import nn

from alignlab.training import AdamW, Constant, Cosine, Linear, Loop, ParameterGroup
from alignlab.training.optimizer import build_optimizer, set_lr


def test_schedules_close_on_paper() -> None:
    linear = Linear(warmup_steps=4, final_ratio=0.2)
    assert [linear.factor(s, 13) for s in (0, 3, 4, 8, 12)] == pytest.approx([0.25, 1.0, 1.0, 0.6, 0.2])
    assert Cosine(warmup_steps=0).factor(50, 101) == pytest.approx(0.1 + 0.9 * 0.5)
    for schedule in (Linear(warmup_steps=3, final_ratio=0.1), Cosine(warmup_steps=3, final_ratio=0.1)):
        assert schedule.factor(9, 10) == pytest.approx(0.1), "the last of ten steps"
    assert Constant(warmup_steps=0).factor(99, 100) == 1.0


def test_only_matrices_decay_and_a_group_keeps_its_own_rate() -> None:
    layer = nn.Linear(2, 3)
    critic = nn.Linear(2, 1, bias=False)
    groups = [
        ParameterGroup("policy", list(layer.parameters())),
        ParameterGroup("critic", list(critic.parameters()), 1e-2),
    ]
    optimizer = build_optimizer(AdamW(lr=1e-3, weight_decay=0.1), groups)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-3, 0.1), (1e-3, 0.0), (1e-2, 0.1)]
    assert set_lr(optimizer, Cosine(warmup_steps=2), 0, 10) == pytest.approx(5e-4)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([5e-4, 5e-4, 5e-3])


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": 0.0}, {"weight_decay": -1.0}])
def test_impossible_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"AdamW: {next(iter(bad))}"):
        AdamW(**bad)  # type: ignore[arg-type]


def test_impossible_schedules_and_clipping_are_refused() -> None:
    with pytest.raises(ValueError, match="Linear: final_ratio must be in"):
        Linear(final_ratio=1.5)
    with pytest.raises(ValueError, match="Constant: warmup_steps must be >= 0, got -1"):
        Constant(warmup_steps=-1)
    with pytest.raises(ValueError, match="Loop: clip_norm must be > 0 or null, got 0"):
        Loop(1, 1, clip_norm=0.0)


def test_a_step_moves_against_the_gradient() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = AdamW(lr=0.1, weight_decay=0.0).build([ParameterGroup("policy", [weight])])
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.allclose(weight.detach(), torch.full((2, 2), -0.1), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_kernel_for_all_parameters_changes_nothing_but_speed(dtype: torch.dtype) -> None:
    found = {}
    for fused in (True, False):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).to(dtype)
        optimizer = AdamW(lr=0.1, weight_decay=0.1, fused=fused).build(
            [ParameterGroup("policy", [*layers.parameters()])]
        )
        for _ in range(10):
            optimizer.zero_grad()
            layers(torch.ones(2, 7, dtype=dtype)).square().sum().backward()
            optimizer.step()
        found[fused] = torch.cat([p.detach().flatten() for p in layers.parameters()])
    assert all(group["fused"] is False for group in optimizer.param_groups)
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-6)
