"""Distillation: a policy learns the next-token distributions of a teacher."""

from alignlab_distill.objective import ForwardKL, ReverseKL

CONTRACT = 2

__all__ = ["CONTRACT", "ForwardKL", "ReverseKL"]
