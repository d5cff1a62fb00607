"""Supervised fine-tuning: a base model learns to answer."""

from alignlab_sft.objective import AnswerNLL
from alignlab_sft.stage import SFT

CONTRACT = 2

__all__ = ["CONTRACT", "SFT", "AnswerNLL"]
