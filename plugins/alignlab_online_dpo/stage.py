"""Pairs from the policy's own answers: the best against the worst of each prompt, by reward."""

from typing import ClassVar

import torch

from alignlab import PreferenceBatch, RolloutBatch
from alignlab.training import OnlineStage


class OnlinePreferences(OnlineStage[PreferenceBatch]):
    """Train a policy on pairs of its own answers, by any objective on pairs (DPO, IPO, ...).

    Of the answers to each prompt, the one with the highest reward is chosen and the one with the lowest is rejected; a
    prompt whose answers all have the same reward weighs nothing.

    Source: Guo et al. 2024, arXiv:2402.04792 (online AI feedback).
    """

    VERSION: ClassVar[str] = "1"

    @property
    def units_per_rollout(self) -> int:
        """One pair per prompt."""
        return self.prompts_per_rollout

    def train_on(self, rollouts: RolloutBatch, step: int) -> PreferenceBatch:
        """The best and the worst answer to each prompt."""
        reward = rollouts.sequence("reward").view(-1, self.samples_per_prompt)
        first = torch.arange(len(reward)) * self.samples_per_prompt
        best, worst = first + reward.argmax(1), first + reward.argmin(1)
        differs = (reward.amax(1) > reward.amin(1)).float()
        return rollouts.as_pairs(list(zip(best.tolist(), worst.tolist(), strict=True)), differs)
