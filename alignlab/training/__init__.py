"""The training loop, and the data regimes that stages train on."""

from alignlab.training.loop import Loop, StepReport
from alignlab.training.optimizer import AdamW, OptimizerSpec, ParameterGroup
from alignlab.training.preferences import PreferenceStage, RowPair
from alignlab.training.stage import TrainingStage

__all__ = [
    "AdamW",
    "Loop",
    "OptimizerSpec",
    "ParameterGroup",
    "PreferenceStage",
    "RowPair",
    "StepReport",
    "TrainingStage",
]
