"""Proximal policy optimisation: clipped losses, generalised advantages, and the stage that samples and trains."""

from alignlab_ppo.gae import GAE
from alignlab_ppo.objective import PPO
from alignlab_ppo.stage import PPOStage

CONTRACT = 2

__all__ = ["CONTRACT", "GAE", "PPO", "PPOStage"]
