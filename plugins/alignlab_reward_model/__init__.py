"""Reward modelling: a scalar head learns what raters prefer."""

from alignlab_reward_model.objective import BradleyTerry
from alignlab_reward_model.stage import RewardModel

CONTRACT = 2

__all__ = ["CONTRACT", "BradleyTerry", "RewardModel"]
