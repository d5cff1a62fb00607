"""What is measured of a policy: evaluations, and the stage that runs them on one model."""

from alignlab.evaluation.base import Evaluation, EvaluationResult
from alignlab.evaluation.files import FilesEvaluation
from alignlab.evaluation.reward import RewardEvaluation
from alignlab.evaluation.stage import Evaluate
from alignlab.evaluation.world import WorldEvaluation

__all__ = ["Evaluate", "Evaluation", "EvaluationResult", "FilesEvaluation", "RewardEvaluation", "WorldEvaluation"]
