"""Policy gradients without a critic: GRPO and its relatives, RLOO, REINFORCE++, and the KL as a part of any of them."""

from alignlab_grpo.advantage import GroupRelative, LeaveOneOut, WhitenedReturns
from alignlab_grpo.importance import TruncatedImportance
from alignlab_grpo.kl import KLInReward, KLToReference
from alignlab_grpo.objective import CISPO, DAPO, GRPO, GSPO, DrGRPO, Reinforce
from alignlab_grpo.stage import DynamicSampling

CONTRACT = 2

__all__ = [
    "CISPO",
    "CONTRACT",
    "DAPO",
    "GRPO",
    "GSPO",
    "DrGRPO",
    "DynamicSampling",
    "GroupRelative",
    "KLInReward",
    "KLToReference",
    "LeaveOneOut",
    "Reinforce",
    "TruncatedImportance",
    "WhitenedReturns",
]
