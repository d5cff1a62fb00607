"""Optimizers: torch's own, built from plain arguments, with a schedule of their own."""

import abc
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from alignlab.errors import ConfigError
from alignlab.policy.gpu import check_gpu
from alignlab.runtime import Runtime
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
    ASKS_ONCE: ClassVar[bool] = False
    """Whether a step asks for loss and gradient once, before it moves a weight; so that `OnPolicy` may save a pass."""
    MOMENT_BYTES: ClassVar[int] = 8
    """Bytes that it keeps per parameter, in float32 training; for estimates of memory."""
    schedule: Schedule
    """Learning rate of each step over its peak."""

    def check_runtime(self, runtime: Runtime) -> None:  # noqa: B027  # most can work anywhere
        """Refuse a runtime that the optimizer cannot work on, before anything trains.

        Raises:
            ConfigError: says what is missing, and what to do.
        """

    @abc.abstractmethod
    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """The torch optimizer over all groups, with each group's peak learning rate."""


@dataclass(frozen=True)
class _Adam(OptimizerSpec):
    """Settings that the forms of AdamW share."""

    ASKS_ONCE: ClassVar[bool] = True
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-5
    weight_decay: float = 0.01
    schedule: Schedule = field(default_factory=Cosine)

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.lr < 0:
            raise ValueError(f"{owner}: lr must be >= 0, got {self.lr}; 1e-5 to 3e-3 is usual")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"{owner}: betas must be in [0, 1), got {self.betas}")
        if self.eps <= 0:
            raise ValueError(f"{owner}: eps must be > 0, got {self.eps}; it divides")
        if self.weight_decay < 0:
            raise ValueError(f"{owner}: weight_decay must be >= 0, got {self.weight_decay}; below 0 weights would grow")

    def split(self, groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
        """Settings of each group, matrices apart from what does not decay."""
        settings: list[dict[str, Any]] = []
        for group in groups:
            for decays in (True, False):
                chosen = [p for p in group.parameters if (p.dim() > 1) == decays]
                decay = self.weight_decay if decays else 0.0
                if chosen:
                    rate = self.lr if group.lr is None else group.lr
                    settings.append({"params": chosen, "lr": rate, "weight_decay": decay})
        return settings


@dataclass(frozen=True)
class AdamW(_Adam):
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
    fused: bool = True

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
        """The torch optimizer; each group is split into what decays and what does not."""
        settings = self.split(groups)
        # The kernel reads memory in a row, whatever the strides say.
        fused = self.fused and all(_is_dense(p) for group in groups for p in group.parameters)
        made = torch.optim.AdamW(settings, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=fused)
        made.register_load_state_dict_pre_hook(functools.partial(_as_asked, fused))
        return made


def _is_dense(parameter: nn.Parameter) -> bool:
    """Whether a parameter's elements fill its memory, without gaps."""
    held: torch.Tensor = getattr(parameter, "to_local", lambda: parameter)()  # of one that is split, the part here
    return torch.empty_like(held, device="meta").stride() == held.stride()


def _as_asked(fused: bool, _: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's state, to be stepped on as this run asks for; torch takes the checkpoint's word otherwise."""
    return {**state, "param_groups": [{**group, "fused": fused} for group in state["param_groups"]]}


@dataclass(frozen=True)
class AdamW8bit(_Adam):
    """AdamW with both moments in 8 bits, by bitsandbytes: 2 bytes per parameter in place of 8. On a GPU.

    Moments of tensors of fewer than 4096 numbers stay in float32. What is learnt differs by their rounding.

    Args:
        lr: peak learning rate.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: per step and learning rate; on matrices only, not on norms and biases.
        schedule: learning rate of each step over its peak.

    Source: Dettmers et al. 2022, arXiv:2110.02861.
    """

    VERSION: ClassVar[str] = "1"
    MOMENT_BYTES: ClassVar[int] = 2

    def check_runtime(self, runtime: Runtime) -> None:
        """Refuse to begin without bitsandbytes, or without a GPU."""
        if runtime.strategy == "fsdp2":
            raise ConfigError("optimizer=adamw_8bit: runtime=fsdp2 does not split moments of 8 bits; use runtime=ddp")
        package = "bitsandbytes", "bitsandbytes"
        check_gpu("optimizer=adamw_8bit", package, "8bit", runtime, "optimizer=adamw keeps moments in full precision")

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """The optimizer of bitsandbytes, its groups split as AdamW's are."""
        import bitsandbytes

        settings = self.split(groups)
        made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(settings, betas=tuple(self.betas), eps=self.eps)
        return made


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
