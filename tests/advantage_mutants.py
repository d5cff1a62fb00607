"""Honest advantages, and advantages with one fault each."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignlab.advantage import Advantage, whiten
from alignlab.batch import RolloutBatch


def group_mean(x: Tensor, group: Tensor) -> Tensor:
    """`(S,)` mean over the samples of the same group."""
    same = (group[None] == group[:, None]).to(x.dtype)
    return same @ x / same.sum(1)


@dataclass(frozen=True)
class GroupRelative(Advantage):
    """Reward less the mean of its group, over the group's deviation (GRPO); 0 where they differ by rounding alone."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "group"})
    rounding: float = 1e-5

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        return rollouts.with_tokens(advantage=rollouts.scored(self.of_samples(rollouts)[rollouts.sequence_id]))

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        reward = rollouts.sequence("reward")
        centred = reward - group_mean(reward, rollouts.group)
        deviation = group_mean(centred.square(), rollouts.group).sqrt()
        return torch.where(deviation > self.rounding * reward.abs(), centred / (deviation + 1e-6), 0.0)


class LeaveOneOut(GroupRelative):
    """Reward less the mean of the others of its group (RLOO)."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        reward = rollouts.sequence("reward")
        size = torch.bincount(rollouts.group)[rollouts.group]
        if bool((size < 2).any()):
            raise ValueError("LeaveOneOut: a group has one sample; sample at least two answers to each prompt")
        return (reward - group_mean(reward, rollouts.group)) * size / (size - 1)


class Whitened(GroupRelative):
    """Reward, whitened over the response tokens of the whole buffer."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward"})

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        reward = rollouts.sequence("reward")[rollouts.sequence_id]
        return rollouts.with_tokens(advantage=whiten(reward, rollouts.weight_by_token()))


class Guided(GroupRelative):
    """Reads an extra that the kit does not know."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = GroupRelative.reads | {"difficulty"}

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        return super().of_samples(rollouts) * rollouts.sequence("difficulty")


# ---- mutants ---------------------------------------------------------------------------------------------------------
class NoVersion(GroupRelative):
    """Inherits what it should state."""


@dataclass
class Thawed(Advantage):
    """Can be changed after construction."""

    VERSION: ClassVar[str] = "1"
    scale: float = 1.0

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        return rollouts


class Undeclared(GroupRelative):
    """Reads groups without declaring them."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward"})


class Forgets(GroupRelative):
    """Gives back a buffer without advantages."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        return rollouts


class Overwrites(GroupRelative):
    """Leaves normalised rewards in the buffer."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        return super().__call__(rollouts).with_sequences(reward=self.of_samples(rollouts))


class Noisy(GroupRelative):
    """Draws from the global generator."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        return super().of_samples(rollouts) + torch.rand(())


@dataclass(frozen=True)
class Running(GroupRelative):
    """Takes the running mean of all buffers as its baseline."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        seen: list[Tensor] = vars(self).setdefault("seen", [])
        seen.append(rollouts.sequence("reward").mean())
        return rollouts.sequence("reward") - torch.stack(seen).mean()


class Everywhere(GroupRelative):
    """Gives prompt tokens credit as well."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        return rollouts.with_tokens(advantage=self.of_samples(rollouts)[rollouts.sequence_id])


class PricedPrompt(GroupRelative):
    """Pays the KL of prompt tokens as well."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = GroupRelative.reads | {"old_logp", "reference_logp"}

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        k1 = rollouts.old_logp - rollouts.reference_logp
        kl = k1.new_zeros(rollouts.num_sequences).index_add(0, rollouts.sequence_id, k1)
        return super().of_samples(rollouts) - 0.1 * kl


class PerToken(GroupRelative):
    """Divides by the length of prompt and answer."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        return super().of_samples(rollouts) / rollouts.lengths()


class Neighbour(GroupRelative):
    """Takes the reward of the sample before as the baseline."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        return rollouts.sequence("reward") - rollouts.sequence("reward").roll(1)


class DividesByZero(GroupRelative):
    """Divides by the deviation as it is."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        reward = rollouts.sequence("reward")
        centred = reward - group_mean(reward, rollouts.group)
        return centred / group_mean(centred.square(), rollouts.group).sqrt()


@dataclass(frozen=True)
class Amplifies(GroupRelative):
    """Adds so little to the deviation that rounding becomes a signal."""

    VERSION: ClassVar[str] = "1"
    rounding: float = 0.0


class Sign(GroupRelative):
    """Rewards the worst."""

    VERSION: ClassVar[str] = "1"

    def of_samples(self, rollouts: RolloutBatch) -> Tensor:
        return -super().of_samples(rollouts)
