"""Causal-LM pretraining: a base model that continues text."""

from alignlab_pretrain.objective import CausalLM
from alignlab_pretrain.stage import Pretrain

CONTRACT = 2

__all__ = ["CONTRACT", "CausalLM", "Pretrain"]
