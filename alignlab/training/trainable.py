"""Interface between the training loop and a stage: its modules, the batch of each step, and hooks around a step."""

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import nn

from alignlab.batch import Batch, TokenBatch
from alignlab.objective import Objective
from alignlab.policy import Policy
from alignlab.stage import StageContext
from alignlab.stats import TokenStats
from alignlab.training.loop import Loop, StepReport
from alignlab.training.mixed_in import MixedIn
from alignlab.training.optimizer import OptimizerSpec, ParameterGroup

B = TypeVar("B", bound=Batch)


class Trainable(abc.ABC, Generic[B]):
    """A stage as the training loop sees it. Every part of it that a step depends on is a function of (seed, step)."""

    MONITOR: ClassVar[str] = "loss"
    """Validation metric by which early stopping and `keep: best` choose."""
    HIGHER_IS_BETTER: ClassVar[bool] = False
    DROPOUT: ClassVar[bool] = True
    """Whether dropout is on while training; off where a policy is compared with a reference or with its old self."""

    objective: Objective[B]
    optimizer: OptimizerSpec
    loop: Loop
    seed: int
    context: StageContext
    policy: Policy
    """The language model that is trained."""
    last_step: StepReport
    """Report of the step that was made last."""

    @abc.abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Modules that are trained and saved in checkpoints, by name; the loop registers them with Lightning."""

    @abc.abstractmethod
    def batch_at(self, step: int) -> B:
        """All units of optimizer step `step`, for all processes: a function of (seed, step) and fixed data."""

    @abc.abstractmethod
    def token_stats(self, batch: B) -> TokenStats:
        """The statistics that the objective needs."""

    @abc.abstractmethod
    def mixed_at(self, step: int) -> Mapping[str, tuple[MixedIn, TokenBatch]]:
        """Further parts of the loss, by name, with their batches of optimizer step `step`, for all processes."""

    @abc.abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Trainable parameters, in groups that are clipped separately."""

    @abc.abstractmethod
    def after_step(self, step: int) -> None:
        """Called after each optimizer step, before it is validated or saved (moving averages of the weights)."""

    @abc.abstractmethod
    def validate_now(self) -> dict[str, float]:
        """Validation metrics of the current model, in evaluation mode; empty where nothing was held out."""

    @abc.abstractmethod
    def publish(self, folder: Path) -> None:
        """Write the trained model."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """State of the next step besides weights, optimizer and step number: tensors, numbers, texts, lists, dicts."""

    @abc.abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
