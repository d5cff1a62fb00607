"""Language models: token statistics, sampling, learned rewards, saving and loading."""

from alignlab.policy.frozen import load_frozen
from alignlab.policy.learned_reward import LearnedReward, LearnedScores, check_scored, check_scorers, learned
from alignlab.policy.llama import Llama, ModelSpec
from alignlab.policy.policy import Policy
from alignlab.policy.prompts import fitting, in_turn, leaves_room
from alignlab.policy.sampling import Progress, Sample, Sampling, complete, generate

__all__ = [
    "LearnedReward",
    "LearnedScores",
    "Llama",
    "ModelSpec",
    "Policy",
    "Progress",
    "Sample",
    "Sampling",
    "check_scored",
    "check_scorers",
    "complete",
    "fitting",
    "generate",
    "in_turn",
    "learned",
    "leaves_room",
    "load_frozen",
]
