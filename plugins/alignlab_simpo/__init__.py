"""Simple preference optimisation: length-normalised preferences without a reference."""

from alignlab_simpo.objective import SimPO

CONTRACT = 2

__all__ = ["CONTRACT", "SimPO"]
