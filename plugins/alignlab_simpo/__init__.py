"""Preference optimisation without a reference: SimPO, ORPO and CPO, for the core's stage on preference pairs."""

from alignlab_simpo.imitating import CPO, ORPO
from alignlab_simpo.objective import SimPO

CONTRACT = 2

__all__ = ["CONTRACT", "CPO", "ORPO", "SimPO"]
