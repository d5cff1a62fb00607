"""Reward modelling: a scalar head learns what raters prefer."""

from alignlab_reward_model.objective import BradleyTerry, MarginBradleyTerry, TiesBradleyTerry
from alignlab_reward_model.regression import ScoreRegression
from alignlab_reward_model.stage import RewardModel

CONTRACT = 2

__all__ = [
    "CONTRACT",
    "BradleyTerry",
    "MarginBradleyTerry",
    "RewardModel",
    "ScoreRegression",
    "TiesBradleyTerry",
]
