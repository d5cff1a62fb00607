"""Language models: token statistics, sampling, learned rewards, saving and loading."""

from alignlab.policy.learned_reward import LearnedReward
from alignlab.policy.llama import Llama, ModelSpec
from alignlab.policy.policy import Policy
from alignlab.policy.sampling import Progress, Sample, Sampling, complete, fitting, generate, leaves_room

__all__ = [
    "LearnedReward",
    "Llama",
    "ModelSpec",
    "Policy",
    "Progress",
    "Sample",
    "Sampling",
    "complete",
    "fitting",
    "generate",
    "leaves_room",
]
