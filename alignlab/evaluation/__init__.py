"""Evaluations: ways of measuring a policy, and the stages that run them on one model, or on one against another."""

from alignlab.evaluation.base import Evaluation, EvaluationResult, answer_row, defined
from alignlab.evaluation.calibration import calibration_error
from alignlab.evaluation.compare import Compare
from alignlab.evaluation.drift import Drift
from alignlab.evaluation.files import FilesEvaluation
from alignlab.evaluation.harness import HarnessEvaluation
from alignlab.evaluation.instructions import InstructionsEvaluation
from alignlab.evaluation.length_control import length_controlled
from alignlab.evaluation.preferences import EvaluatePreferences
from alignlab.evaluation.refusal import RefusalEvaluation
from alignlab.evaluation.reward import RewardEvaluation
from alignlab.evaluation.stage import Evaluate
from alignlab.evaluation.world import WorldEvaluation
from alignlab.evaluation.world_calibration import CalibrationEvaluation
from alignlab.evaluation.world_instructions import WorldInstructions
from alignlab.evaluation.world_refusal import WorldRefusal
from alignlab.metrics import Column, Estimate, Panel, Point, Points, Profile, Table, Text

__all__ = [
    "CalibrationEvaluation",
    "Column",
    "Compare",
    "Drift",
    "Estimate",
    "Evaluate",
    "EvaluatePreferences",
    "Evaluation",
    "EvaluationResult",
    "FilesEvaluation",
    "HarnessEvaluation",
    "InstructionsEvaluation",
    "Panel",
    "Point",
    "Points",
    "Profile",
    "RefusalEvaluation",
    "RewardEvaluation",
    "Table",
    "Text",
    "WorldEvaluation",
    "WorldInstructions",
    "WorldRefusal",
    "answer_row",
    "calibration_error",
    "defined",
    "length_controlled",
]
