"""Direct preference optimisation: DPO and IPO, for the core's stage on preference pairs."""

from alignlab_dpo.objective import DPO, IPO

CONTRACT = 2

__all__ = ["CONTRACT", "DPO", "IPO"]
