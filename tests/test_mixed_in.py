"""A further objective that is mixed into every step: its gradient is added, and bad parts are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_distill import ForwardKL
from alignlab_dpo import DPO
from alignlab_pretrain import CausalLM
from alignlab_sft import AnswerNLL
from torch import Tensor
from training_cases import MIXED, Fixed, Words, parameters, stage_of, train
from training_runs import run_in

from alignlab.errors import DataError
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.training import Constant, MixedIn, OptimizerSpec, ParameterGroup


class Descent(OptimizerSpec):
    """Plain gradient descent: a step's change is its gradient."""

    VERSION: ClassVar[str] = "1"
    schedule = Constant(warmup_steps=0)

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": list(group.parameters)} for group in groups], lr=0.1)


def at_start(name: str) -> Fixed:
    """The stage of a case before its first step."""
    stage = stage_of(name, 60, steps=1)
    stage.prepare({}, StageContext("fixed", Path(), Path(), Runtime("cpu")))
    return stage


def change(name: str, folder: Any, mixed_in: dict[str, MixedIn]) -> dict[str, Tensor]:
    """The change of every parameter by one unclipped step of gradient descent."""
    stage = stage_of(name, 60, steps=1, clip_norm=None)
    stage.optimizer, stage.mixed_in = Descent(), mixed_in
    start = parameters(at_start(name))
    train(stage, folder)
    return {k: v - start[k] for k, v in parameters(stage).items()}


def test_its_gradient_times_its_weight_is_added(tmp_path: Any) -> None:
    part = MIXED["ppo_ptx"]["ptx"]
    alone, once, twice = (
        change("ppo_ptx", tmp_path / str(i), mixed)
        for i, mixed in enumerate(({}, {"ptx": part}, {"ptx": MixedIn(CausalLM(), Words(), "documents", 1.4, 6)}))
    )
    for name in alone:
        torch.testing.assert_close(twice[name] - alone[name], 2 * (once[name] - alone[name]), atol=1e-6, rtol=1e-3)
    assert max(float((once[k] - alone[k]).abs().max()) for k in alone) > 1e-3


def test_its_loss_and_metrics_are_logged_under_its_name(tmp_path: Any) -> None:
    _, heard = run_in(tmp_path, stage_of("ppo_ptx", 60, steps=2, log_every=1))
    assert len(heard.values("train/ptx/loss")) == 2 and len(heard.values("train/ptx/nll")) == 2
    own = stage_of("ppo_ptx", 60, steps=2, log_every=1)
    own.mixed_in = {}
    _, without = run_in(tmp_path / "without", own)
    first = heard.values("train/loss")[0] - 0.7 * heard.values("train/ptx/loss")[0]
    assert first == pytest.approx(without.values("train/loss")[0], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0.0}, "weight must be > 0, got 0.0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"objective": DPO()}, "DPO takes a PreferenceBatch, but texts are mixed in"),
        ({"objective": ForwardKL()}, "ForwardKL needs kl_from_teacher"),
    ],
)
def test_a_part_that_cannot_be_mixed_in_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixedIn(**{"objective": CausalLM(), "data": Words(), **arguments})


def test_records_that_are_not_there_are_named() -> None:
    part = MixedIn(AnswerNLL(), Words(), "instructions")
    assert part.need[1].records == "instructions"

    class Empty(Words):
        def documents(self, split: Any) -> Any:
            return []

    stage = at_start("ppo_ptx")
    with pytest.raises(DataError, match="Empty has no documents to mix in"):
        MixedIn(CausalLM(), Empty()).rows(stage.policy, 32)
