"""Driving a training stage without the pipeline: as it is before its first step, and after its last."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alignlab.batch import Batch
from alignlab.runtime import Precision
from alignlab.seed import fold_in
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.stage.sandbox import Sandbox, StageSubject
from alignlab.training.stage import TrainingStage


def training_stage(subject: StageSubject) -> TrainingStage[Any]:
    """A new stage.

    Raises:
        DoesNotApply: it trains no policy.
    """
    stage = subject.make()
    if not isinstance(stage, TrainingStage):
        raise DoesNotApply("it trains no policy by an objective")
    return stage


def prepared(subject: StageSubject, sandbox: Sandbox) -> TrainingStage[Any]:
    """A stage as it is before its first step."""
    stage = training_stage(subject)
    stage.context = sandbox.context()
    torch.manual_seed(fold_in(stage.seed, 0))
    stage.prepare(sandbox.inputs, stage.context)
    stage.policy.eval()
    return stage


def trained(
    subject: StageSubject, sandbox: Sandbox, budget: int | None = None, precision: Precision | None = None
) -> TrainingStage[Any]:
    """A stage after its last step.

    Args:
        budget: tokens of one micro-batch; as the stage has it by default.
        precision: as the runtime has it by default.
    """
    stage = training_stage(subject)
    if budget is not None:
        stage.loop = replace(stage.loop, micro_batch_tokens=budget)
    stage.run(sandbox.inputs, sandbox.context(precision))
    return stage


def batches(stage: TrainingStage[Any]) -> Iterator[Batch]:
    """The batch of every step, and those that are validated on."""
    yield from (stage.batch_at(step) for step in range(stage.loop.steps))
    yield from stage.validation_batches()


def weights(stage: TrainingStage[Any]) -> dict[str, Tensor]:
    """A copy of every parameter that the stage trains or saves."""
    named = ((f"{name}.{k}", v) for name, module in stage.modules().items() for k, v in module.named_parameters())
    return {k: v.detach().cpu().double().clone() for k, v in named}


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Euclidean distance of two sets of weights."""
    return float(torch.stack([(one[k] - other[k]).square().sum() for k in one]).sum().sqrt())
