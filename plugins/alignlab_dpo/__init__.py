"""Direct preference optimisation: DPO and IPO."""

from alignlab_dpo.objective import DPO, IPO
from alignlab_dpo.stage import DPOStage

CONTRACT = 1

__all__ = ["CONTRACT", "DPO", "IPO", "DPOStage"]
