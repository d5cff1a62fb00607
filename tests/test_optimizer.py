"""Schedules, groups and settings of optimizers."""

from typing import Any

import pytest
import torch
from test_qlora import quantizer as quantizer
from torch import nn

from alignlab.errors import ConfigError
from alignlab.runtime import Runtime
from alignlab.training import AdamW, AdamW8bit, Constant, Cosine, Linear, Loop, ParameterGroup
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


def test_a_parameter_with_gaps_is_stepped_as_any_other() -> None:
    """A view of some columns: the fused kernel reads memory in a row, and would step by other elements' gradients."""
    found = {}
    for fused in (True, False):
        weight = nn.Parameter(torch.arange(24.0).view(4, 6).clone()[:, ::2])
        optimizer = AdamW(lr=0.1, fused=fused).build([ParameterGroup("policy", [weight])])
        for _ in range(3):
            optimizer.zero_grad()
            weight.sin().sum().backward()
            optimizer.step()
        found[fused] = weight.detach().clone()
    assert torch.allclose(found[True], found[False], atol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_a_resumed_run_steps_as_it_is_asked_to(fused: bool) -> None:
    """`fused` is not part of a run's identity; what is in the checkpoint must not outlive a change of it."""
    found: list[tuple[torch.Tensor, dict[str, Any]]] = []
    for asked in (not fused, fused):
        weight = nn.Parameter(torch.ones(2, 3))
        optimizer = AdamW(lr=0.1, fused=asked).build([ParameterGroup("policy", [weight])])
        if found:
            weight.data.copy_(found[0][0])
            optimizer.load_state_dict(found[0][1])
        weight.square().sum().backward()
        optimizer.step()
        found.append((weight.detach().clone(), optimizer.state_dict()))
    assert found[1][1]["param_groups"][0]["fused"] is fused and float(found[1][1]["state"][0]["step"]) == 2


def test_moments_of_8_bits_are_those_of_bitsandbytes(quantizer: Any) -> None:
    layer = nn.Linear(2, 3)
    spec = AdamW8bit(lr=1e-3, betas=(0.8, 0.9), eps=1e-7, weight_decay=0.1)
    optimizer = build_optimizer(spec, [ParameterGroup("policy", [*layer.parameters()])])
    assert isinstance(optimizer, quantizer.optim.AdamW8bit)
    assert [(g["lr"], g["weight_decay"], g["betas"], g["eps"]) for g in optimizer.param_groups] == [
        (1e-3, 0.1, (0.8, 0.9), 1e-7),
        (1e-3, 0.0, (0.8, 0.9), 1e-7),
    ]


def test_moments_of_8_bits_are_refused_without_a_gpu_before_anything_trains() -> None:
    with pytest.raises(ConfigError, match=r"optimizer=adamw_8bit: needs .*a CUDA GPU.*; optimizer=adamw keeps moments"):
        AdamW8bit().check_runtime(Runtime("cpu"))


def test_moments_of_8_bits_are_not_split(quantizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"optimizer=adamw_8bit: runtime=fsdp2 does not split .*; use runtime=ddp"):
        AdamW8bit().check_runtime(Runtime("gpu", devices=2, strategy="fsdp2"))
    AdamW8bit().check_runtime(Runtime("gpu", devices=2, strategy="ddp"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moments_of_8_bits_end_where_those_of_32_do() -> None:
    pytest.importorskip("bitsandbytes")
    ends = []
    for spec in (AdamW8bit(lr=1e-2, schedule=Constant(0)), AdamW(lr=1e-2, schedule=Constant(0))):
        torch.manual_seed(0)
        layer = nn.Linear(128, 128).cuda()
        optimizer = build_optimizer(spec, [ParameterGroup("policy", [*layer.parameters()])])
        for _ in range(200):
            optimizer.zero_grad()
            loss = (layer(torch.eye(128, device="cuda")) - 1).square().mean()
            loss.backward()
            optimizer.step()
        ends.append(float(loss.detach()))
    assert ends[0] < 1e-3 and ends[1] < 1e-3
