"""Kahneman-Tversky optimisation: learning from single answers that are called good or bad."""

from alignlab_kto.objective import KTO

CONTRACT = 2

__all__ = ["CONTRACT", "KTO"]
