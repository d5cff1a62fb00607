"""Where a stage reports to: the terminal, its curves file, Weights & Biases."""

from alignlab.tracking.experiment import Origin, Tracking

__all__ = ["Origin", "Tracking"]
