"""Pairs from the policy's own answers: the best against the worst of each prompt, by reward."""

from typing import Any, ClassVar

import torch

from alignlab import PreferenceBatch, RolloutBatch
from alignlab.advantage import without_signal
from alignlab.training import OnlineStage


class OnlinePreferences(OnlineStage[PreferenceBatch]):
    """Train a policy on pairs of its own answers, by any objective on pairs (DPO, IPO, ...).

    Of the answers to each prompt, the one with the highest reward is chosen and the one with the lowest is rejected; a
    prompt whose answers all have the same reward (up to rounding) has weight 0.

    Source: Guo et al. 2024, arXiv:2402.04792 (online AI feedback).
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        if self.samples_per_prompt < 2:
            raise ValueError(
                f"OnlinePreferences: samples_per_prompt must be >= 2, got {self.samples_per_prompt}; a pair is made of "
                f"two answers to one prompt"
            )

    @property
    def units_per_rollout(self) -> int:
        """One pair per prompt."""
        return self.prompts_per_rollout

    def train_on(self, rollouts: RolloutBatch, step: int) -> PreferenceBatch:
        """The best and the worst answer to each prompt."""
        reward = rollouts.sequence("reward")
        table = reward.view(-1, self.samples_per_prompt)
        first = torch.arange(len(table)) * self.samples_per_prompt
        best, worst = first + table.argmax(1), first + table.argmin(1)
        differs = ~without_signal(reward, rollouts.group)[first]
        return rollouts.as_pairs(list(zip(best.tolist(), worst.tolist(), strict=True)), differs.float())
