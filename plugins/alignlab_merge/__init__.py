"""Merging of policies: averages of weights, and task arithmetic."""

from alignlab_merge.stage import Average, Merge, TaskArithmetic

CONTRACT = 2

__all__ = ["CONTRACT", "Average", "Merge", "TaskArithmetic"]
