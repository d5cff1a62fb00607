"""Where a stage reports to: the terminal, its curves file, and recorders such as Weights & Biases and TensorBoard."""

from alignlab.tracking.experiment import Tracking
from alignlab.tracking.process import say
from alignlab.tracking.recorder import Given, Made, Origin, Recorder, StageInfo, StageRecord
from alignlab.tracking.tensorboard import TensorBoard
from alignlab.tracking.wandb_recorder import Wandb

__all__ = [
    "Given",
    "Made",
    "Origin",
    "Recorder",
    "StageInfo",
    "StageRecord",
    "TensorBoard",
    "Tracking",
    "Wandb",
    "say",
]
