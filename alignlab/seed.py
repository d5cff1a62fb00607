"""Seeds: one number folded out of several, and every global generator set at once."""

import random


def fold_in(*numbers: int) -> int:
    """A seed out of several numbers (SplitMix64 steps), the same on every machine; 0 <= seed < 2**63."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 27
        state = state * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, each from the stage's seed."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_torch(seed: int) -> None:
    """Seed PyTorch's generators of the devices in use, to what `torch.manual_seed` sets them to.

    That one also queues a call, with a traceback, for every kind of device that is never used: milliseconds per call.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
