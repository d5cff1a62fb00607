"""Optimizers: torch's own, built from plain arguments, with a schedule of their own."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from alignlab.training.schedule import Cosine, Schedule


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are stepped and clipped together.

    Args:
        name: for messages and metrics (`policy`, `critic`).
        parameters: trainable ones only.
        lr: peak learning rate; null takes the optimizer's.
        clip_norm: largest gradient norm of the group; null takes the loop's.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float | None = None
    clip_norm: float | None = None


class OptimizerSpec(abc.ABC):
    """Builds the torch optimizer of a stage.

    The stage hands `step` a closure that gives loss and gradient at the current weights, so an optimizer may ask for
    them several times per step (LBFGS). The learning rates that `build` sets are peaks: before each step they are
    multiplied by the schedule's factor.
    """

    VERSION: ClassVar[str]
    schedule: Schedule
    """Learning rate of each step over its peak."""

    @abc.abstractmethod
    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """The torch optimizer over all groups, with each group's peak learning rate."""


@dataclass(frozen=True)
class AdamW(OptimizerSpec):
    """AdamW.

    Args:
        lr: peak learning rate.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: per step and learning rate; on matrices only, not on norms and biases.
        schedule: learning rate of each step over its peak.
        fused: step all parameters in one kernel, also on a CPU; false goes through them one operation at a time. The
            results agree to rounding.

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101.
    """

    VERSION: ClassVar[str] = "1"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-5
    weight_decay: float = 0.01
    schedule: Schedule = field(default_factory=Cosine)
    fused: bool = True

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError(f"AdamW: lr must be >= 0, got {self.lr}; 1e-5 to 3e-3 is usual")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"AdamW: betas must be in [0, 1), got {self.betas}")
        if self.eps <= 0:
            raise ValueError(f"AdamW: eps must be > 0, got {self.eps}; it divides")
        if self.weight_decay < 0:
            raise ValueError(f"AdamW: weight_decay must be >= 0, got {self.weight_decay}; below 0 weights would grow")

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
        """The torch optimizer; each group is split into what decays and what does not."""
        settings: list[dict[str, Any]] = []
        for group in groups:
            lr = self.lr if group.lr is None else group.lr
            for decays in (True, False):
                chosen = [p for p in group.parameters if (p.dim() > 1) == decays]
                decay = self.weight_decay if decays else 0.0
                if chosen:
                    settings.append({"params": chosen, "lr": lr, "weight_decay": decay})
        return torch.optim.AdamW(settings, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=self.fused)


def build_optimizer(spec: OptimizerSpec, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """The spec's optimizer, each of its groups with its peak learning rate written down as `peak_lr`."""
    optimizer = spec.build(groups)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int, steps: int) -> float:
    """Set every group's learning rate for optimizer step `step` (from 0) of `steps`; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * schedule.factor(step, steps)
    return float(optimizer.param_groups[0]["lr"])
