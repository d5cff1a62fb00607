"""One fused loss for every objective: per-token statistics of a language model's head in bounded memory.

Imports torch alone; Triton is imported when a call first chooses it, so that a machine without it can use the rest.
"""

from alignlab.kernels.kl import Direction, linear_kl
from alignlab.kernels.linear import Implementation, linear_logprobs
from alignlab.kernels.streamed import Streamed, TokenLoss, linear_loss_streamed
from alignlab.kernels.types import LogProbs

__all__ = [
    "Direction",
    "Implementation",
    "LogProbs",
    "Streamed",
    "TokenLoss",
    "linear_kl",
    "linear_logprobs",
    "linear_loss_streamed",
]
