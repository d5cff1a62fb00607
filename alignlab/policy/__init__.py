"""Language models: token statistics, sampling, learned rewards, saving and loading."""

from alignlab.policy.adapter_files import base_dtype, copy_adapter, is_adapter
from alignlab.policy.choice import Sampling
from alignlab.policy.drawing import Drawn, Progress
from alignlab.policy.frozen import (
    digest_of_vocabulary,
    digest_of_weights,
    frozen_copy,
    load_frozen,
    on_device,
    skeleton,
    trainable,
)
from alignlab.policy.learned_reward import LearnedReward, LearnedScores, check_scored, check_scorers, learned
from alignlab.policy.llama import Llama, ModelSpec
from alignlab.policy.lora import LoRA
from alignlab.policy.policy import Policy
from alignlab.policy.prompts import fitting, in_turn, leaves_room
from alignlab.policy.qlora import QLoRA
from alignlab.policy.rollout import BuiltinRollout, Rollout, Sampler, answers
from alignlab.policy.sampling import Sample, complete, generate
from alignlab.policy.vllm_rollout import VLLMRollout

__all__ = [
    "BuiltinRollout",
    "Drawn",
    "LearnedReward",
    "LearnedScores",
    "Llama",
    "LoRA",
    "ModelSpec",
    "Policy",
    "Progress",
    "QLoRA",
    "Rollout",
    "Sample",
    "Sampler",
    "Sampling",
    "VLLMRollout",
    "answers",
    "base_dtype",
    "check_scored",
    "check_scorers",
    "complete",
    "copy_adapter",
    "digest_of_vocabulary",
    "digest_of_weights",
    "fitting",
    "frozen_copy",
    "generate",
    "in_turn",
    "is_adapter",
    "learned",
    "leaves_room",
    "load_frozen",
    "on_device",
    "skeleton",
    "trainable",
]
