"""The most memory that training has taken."""

import resource
import sys

import torch

_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of `ru_maxrss`."""


def forget_peak(device: torch.device) -> None:
    """Begin to measure again; on a CPU nothing can be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """MiB: on a GPU the most that PyTorch has allocated on it; on a CPU the most that this process has had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES / 2**20
