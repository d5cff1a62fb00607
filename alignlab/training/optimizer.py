"""The optimizer and its schedule, stated once for every stage."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are stepped and clipped together.

    Args:
        name: for messages and metrics (`policy`, `critic`).
        parameters: trainable ones only.
        lr: peak learning rate; null takes the optimizer's.
        clip_norm: largest gradient norm of the group; null takes the optimizer's.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float | None = None
    clip_norm: float | None = None


class OptimizerSpec(abc.ABC):
    """What a stage steps by: it builds the torch optimizer, and sets its learning rates as a function of the step.

    The stage hands `step` a closure, which gives loss and gradient at the weights as they are, so that an optimizer may
    ask for them several times (LBFGS).
    """

    VERSION: ClassVar[str]
    clip_norm: float | None
    """Largest gradient norm of a group that does not state its own; None does not clip."""

    @abc.abstractmethod
    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """The torch optimizer over all groups."""

    @abc.abstractmethod
    def set_lr(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> float:
        """Set every group's learning rate for optimizer step `step` (from 0) of `steps`; returns the first group's."""


@dataclass(frozen=True)
class AdamW(OptimizerSpec):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with warm-up, decay and clipping by norm.

    Args:
        lr: peak learning rate.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: per step and learning rate; on matrices only, not on norms and biases.
        warmup_steps: optimizer steps of linear warm-up.
        schedule: after warm-up: "cosine" or "linear" decay to `final_lr_ratio`, or "constant".
        final_lr_ratio: last learning rate over the peak.
        clip_norm: largest gradient norm of a group of parameters; null does not clip.
    """

    VERSION: ClassVar[str] = "1"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-5
    weight_decay: float = 0.01
    warmup_steps: int = 20
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_ratio: float = 0.1
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError(f"AdamW: lr must be >= 0, got {self.lr}; 1e-5 to 3e-3 is usual")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"AdamW: betas must be in [0, 1), got {self.betas}")
        if self.eps <= 0:
            raise ValueError(f"AdamW: eps must be > 0, got {self.eps}; it divides")
        if self.weight_decay < 0:
            raise ValueError(f"AdamW: weight_decay must be >= 0, got {self.weight_decay}; below 0 weights would grow")
        if self.warmup_steps < 0:
            raise ValueError(f"AdamW: warmup_steps must be >= 0, got {self.warmup_steps}")
        if not 0 <= self.final_lr_ratio <= 1:
            raise ValueError(f"AdamW: final_lr_ratio must be in [0, 1], got {self.final_lr_ratio}; it is of the peak")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"AdamW: clip_norm must be > 0 or null, got {self.clip_norm}")
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"AdamW: schedule must be cosine, linear or constant, got {self.schedule!r}")

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
        """The torch optimizer; each group is split into what decays and what does not."""
        settings: list[dict[str, Any]] = []
        for group in groups:
            lr = self.lr if group.lr is None else group.lr
            for decays in (True, False):
                chosen = [p for p in group.parameters if (p.dim() > 1) == decays]
                decay = self.weight_decay if decays else 0.0
                if chosen:
                    settings.append({"params": chosen, "lr": lr, "peak_lr": lr, "weight_decay": decay})
        return torch.optim.AdamW(settings, betas=(self.betas[0], self.betas[1]), eps=self.eps)

    def lr_factor(self, step: int, steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of `steps`, over the peak: a pure function of the step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        done = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        shape = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1 - done
        return self.final_lr_ratio + (1 - self.final_lr_ratio) * shape

    def set_lr(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> float:
        """Set every group's learning rate for this step; returns the first group's."""
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.lr_factor(step, steps)
        return float(optimizer.param_groups[0]["lr"])
