"""Learning-rate schedules: the rate of every optimizer step over its peak, a pure function of the step."""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar


class Schedule(abc.ABC):
    """A learning-rate schedule."""

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of `steps`, over the peak."""

    def warning(self, steps: int) -> str:
        """A warning about this schedule for a run of so many steps, in one sentence; empty where none is needed."""
        return ""


@dataclass(frozen=True)
class _WarmedUp(Schedule):
    """Linear warm-up, then a curve.

    Args:
        warmup_steps: optimizer steps of linear warm-up; the last of them has the peak rate.
    """

    warmup_steps: int = 20

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"{type(self).__name__}: warmup_steps must be >= 0, got {self.warmup_steps}")

    def factor(self, step: int, steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) of `steps`, over the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        # The first step after warm-up has the peak rate, the last step of the run the final one.
        return self.after_warmup(min(1.0, (step - self.warmup_steps) / max(1, steps - 1 - self.warmup_steps)))

    def warning(self, steps: int) -> str:
        """The peak is never reached where warm-up is longer than the run."""
        if self.warmup_steps <= steps:
            return ""
        return (
            f"the learning rate never reaches its peak: optimizer.schedule.warmup_steps is {self.warmup_steps} and the "
            f"run has {steps} steps, so it ends at {steps / self.warmup_steps:.0%} of it"
        )

    @abc.abstractmethod
    def after_warmup(self, done: float) -> float:
        """The factor when a share `done` of the steps after warm-up is done."""


@dataclass(frozen=True)
class _Decay(_WarmedUp):
    """Linear warm-up, then decay to a final rate.

    Args:
        final_ratio: learning rate of the last step over the peak.
    """

    final_ratio: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.final_ratio <= 1:
            raise ValueError(
                f"{type(self).__name__}: final_ratio must be in [0, 1], got {self.final_ratio}; it is of the peak"
            )

    def after_warmup(self, done: float) -> float:
        """The factor when a share `done` of the steps after warm-up is done."""
        return self.final_ratio + (1 - self.final_ratio) * self.shape(done)

    @abc.abstractmethod
    def shape(self, done: float) -> float:
        """From 1 at the start to 0 at the end."""


@dataclass(frozen=True)
class Cosine(_Decay):
    """Linear warm-up, then cosine decay.

    Args:
        warmup_steps: optimizer steps of linear warm-up.
        final_ratio: learning rate of the last step over the peak.

    Source: Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts.
    """

    VERSION: ClassVar[str] = "2"

    def shape(self, done: float) -> float:
        """Half a cosine wave."""
        return 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Linear(_Decay):
    """Linear warm-up, then linear decay.

    Args:
        warmup_steps: optimizer steps of linear warm-up.
        final_ratio: learning rate of the last step over the peak.
    """

    VERSION: ClassVar[str] = "2"

    def shape(self, done: float) -> float:
        """A straight line."""
        return 1 - done


@dataclass(frozen=True)
class Constant(_WarmedUp):
    """Linear warm-up, then the peak rate.

    Args:
        warmup_steps: optimizer steps of linear warm-up.
    """

    VERSION: ClassVar[str] = "1"

    def after_warmup(self, done: float) -> float:
        """The peak."""
        return 1.0
