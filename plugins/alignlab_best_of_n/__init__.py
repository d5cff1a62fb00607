"""Best-of-n sampling: answers for fine-tuning on the winners (RAFT, expert iteration)."""

from alignlab_best_of_n.kl import kl_bound, kl_estimate, kl_of_masses
from alignlab_best_of_n.stage import BestOfN

CONTRACT = 2

__all__ = ["CONTRACT", "BestOfN", "kl_bound", "kl_estimate", "kl_of_masses"]
