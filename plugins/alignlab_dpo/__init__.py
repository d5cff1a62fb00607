"""Direct preference optimisation: DPO and its relatives with a reference, for the core's stage on preference pairs."""

from alignlab_dpo.imitation import ChosenNLL
from alignlab_dpo.margins import APOZero, SLiC
from alignlab_dpo.noisy_labels import ConservativeDPO, RobustDPO, SoftLabelDPO
from alignlab_dpo.objective import DPO, IPO
from alignlab_dpo.outcomes import DavidsonDPO, PlackettLuce
from alignlab_dpo.weighting import WPO, LengthNormalizedDPO

CONTRACT = 2

__all__ = [
    "CONTRACT",
    "DPO",
    "IPO",
    "WPO",
    "APOZero",
    "ChosenNLL",
    "ConservativeDPO",
    "DavidsonDPO",
    "LengthNormalizedDPO",
    "PlackettLuce",
    "RobustDPO",
    "SLiC",
    "SoftLabelDPO",
]
