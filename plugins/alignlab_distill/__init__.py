"""Distillation: a policy learns the next-token distributions of a teacher."""

from alignlab_distill.objective import ForwardKL, ReverseKL
from alignlab_distill.stage import OnPolicyDistillation

CONTRACT = 2

__all__ = ["CONTRACT", "ForwardKL", "OnPolicyDistillation", "ReverseKL"]
