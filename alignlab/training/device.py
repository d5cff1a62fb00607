"""A GPU for batches of any length, and the most memory that training has taken."""

import os
import resource
import sys

import torch

_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of `ru_maxrss`."""


def prepare_for_new_lengths(device: torch.device) -> None:
    """Let a GPU take batches of ever new lengths without a pause at each.

    Memory that PyTorch has taken is extended (unless the environment sets the allocator), where otherwise each length
    would take pieces of its own. cuDNN's attention, which makes a plan for each shape, is left out.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    if not any(os.environ.get(name) for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")):
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
