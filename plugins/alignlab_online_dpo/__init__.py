"""Online preference optimisation: sample answers, let the reward choose, and learn from the pairs."""

from alignlab_online_dpo.stage import OnlinePreferences

CONTRACT = 2

__all__ = ["CONTRACT", "OnlinePreferences"]
