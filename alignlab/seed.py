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
