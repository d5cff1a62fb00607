"""Group-relative policy gradients without a critic: GRPO and RLOO."""

from alignlab_grpo.advantage import GroupRelative, LeaveOneOut
from alignlab_grpo.objective import GRPO, Reinforce

CONTRACT = 2

__all__ = ["CONTRACT", "GRPO", "GroupRelative", "LeaveOneOut", "Reinforce"]
