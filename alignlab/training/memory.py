"""The memory that training takes: how it is taken from a GPU, and the most that it was."""

import os
import resource
import sys

import torch

_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of `ru_maxrss`."""


def let_segments_grow(device: torch.device) -> None:
    """Let PyTorch extend memory that it has taken on a GPU: batches of new lengths would else take new pieces.

    Nothing is changed where the environment sets the allocator.
    """
    set_by_user = any(os.environ.get(name) for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"))
    if device.type == "cuda" and not set_by_user:
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")


def forget_peak(device: torch.device) -> None:
    """Begin to measure again; on a CPU nothing can be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float:
    """MiB: on a GPU the most that PyTorch has allocated on it; on a CPU the most that this process has had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES / 2**20
