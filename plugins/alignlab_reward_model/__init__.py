"""Reward modelling: heads learn what raters prefer, or how they rate; and rewards made of such models.

BradleyTerry, MarginBradleyTerry, TiesBradleyTerry, ScoreRegression    objectives
RewardModel, RatedRewardModel                                          stages, on pairs and on rated answers
ModelReward, EnsembleMean, WorstCase, Pessimistic                      rewards, of the models among a stage's inputs
"""

from alignlab_reward_model.ensemble import Ensemble, EnsembleMean, Pessimistic, WorstCase
from alignlab_reward_model.objective import BradleyTerry, MarginBradleyTerry, TiesBradleyTerry
from alignlab_reward_model.rated import RatedRewardModel
from alignlab_reward_model.regression import ScoreRegression
from alignlab_reward_model.rewards import ModelReward
from alignlab_reward_model.stage import RewardModel

CONTRACT = 2

__all__ = [
    "CONTRACT",
    "BradleyTerry",
    "Ensemble",
    "EnsembleMean",
    "MarginBradleyTerry",
    "ModelReward",
    "Pessimistic",
    "RatedRewardModel",
    "RewardModel",
    "ScoreRegression",
    "TiesBradleyTerry",
    "WorstCase",
]
