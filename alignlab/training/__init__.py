"""The training loop, and the data regimes that stages train on."""

from alignlab.training.answers import AnswerStage
from alignlab.training.labelled import LabelledStage
from alignlab.training.loop import Loop, StepReport
from alignlab.training.measure import measure, measure_together
from alignlab.training.mixed_in import MixedIn
from alignlab.training.offline import OfflineStage
from alignlab.training.online import OnlineStage
from alignlab.training.optimizer import AdamW, AdamW8bit, OptimizerSpec, ParameterGroup
from alignlab.training.policy_gradient import PolicyGradientStage
from alignlab.training.preferences import PreferenceStage, RowPair
from alignlab.training.rankings import RankingStage
from alignlab.training.schedule import Constant, Cosine, Linear, Schedule
from alignlab.training.stage import TrainingStage

__all__ = [
    "AdamW",
    "AdamW8bit",
    "AnswerStage",
    "Constant",
    "Cosine",
    "LabelledStage",
    "Linear",
    "Loop",
    "MixedIn",
    "OfflineStage",
    "OnlineStage",
    "OptimizerSpec",
    "ParameterGroup",
    "PolicyGradientStage",
    "PreferenceStage",
    "RankingStage",
    "RowPair",
    "Schedule",
    "StepReport",
    "TrainingStage",
    "measure",
    "measure_together",
]
