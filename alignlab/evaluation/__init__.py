"""Evaluations: ways of measuring a policy, and the stages that run them on one model, or on one against another."""

from alignlab.evaluation.base import Evaluation, EvaluationResult, answer_row, defined
from alignlab.evaluation.drift import Drift
from alignlab.evaluation.files import FilesEvaluation
from alignlab.evaluation.instructions import InstructionsEvaluation
from alignlab.evaluation.reward import RewardEvaluation
from alignlab.evaluation.stage import Evaluate
from alignlab.evaluation.world import WorldEvaluation
from alignlab.metrics import Column, Estimate

__all__ = [
    "Column",
    "Drift",
    "Estimate",
    "Evaluate",
    "Evaluation",
    "EvaluationResult",
    "FilesEvaluation",
    "InstructionsEvaluation",
    "RewardEvaluation",
    "WorldEvaluation",
    "answer_row",
    "defined",
]
