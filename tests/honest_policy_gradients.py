"""Policy-gradient objectives, written as a plugin's author would: none of them may raise a false alarm."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, relu

from alignlab import Loss, Objective, RolloutBatch, TokenStats
from alignlab.objective import sequences


@dataclass(frozen=True)
class Rolled(Objective[RolloutBatch]):
    """Base of the policy gradients: mean over tokens of what `surrogate` makes of ratio, advantage and logp."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "advantage"})

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = batch.scored(stats.logp - batch.old_logp).clamp(-20, 20).exp()
        return self.loss(batch, loss=self.surrogate(ratio, batch.scored(batch.advantage), batch.scored(stats.logp)))

    def surrogate(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))


class CISPO(Rolled):
    """Mean over tokens of `-stopped(clipped ratio) * advantage * logp`."""

    VERSION: ClassVar[str] = "1"

    def surrogate(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        return -ratio.clamp(0.0, 1.3).detach() * advantage * logp


class DualClip(Rolled):
    """Mean over tokens of PPO's loss, which for bad tokens stops at 3 times their advantage."""

    VERSION: ClassVar[str] = "1"

    def surrogate(self, ratio: Tensor, advantage: Tensor, logp: Tensor) -> Tensor:
        loss = super().surrogate(ratio, advantage, logp)
        return torch.where(advantage < 0, torch.minimum(loss, -3 * advantage), loss)


class Reinforce(Objective[RolloutBatch]):
    """Mean over samples of `-advantage * logp`, summed over the tokens of each (RLOO)."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})
    per = {"loss": sequences}

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=-batch.sum_by_sequence(stats.logp * batch.scored(batch.advantage)))


class Winners(Objective[RolloutBatch]):
    """Mean over tokens of the NLL of samples that did better than expected (RAFT); others have no gradient."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=-relu(batch.scored(batch.advantage)) * stats.logp)


@dataclass(frozen=True)
class GRPO(Rolled):
    """Mean over tokens of PPO's loss and of `kl` times the k3 estimate of the divergence from the reference."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = Rolled.reads | {"reference_logp"}
    kl: float = 0.1

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        away = batch.scored(batch.reference_logp - stats.logp).clamp(-20, 20)
        ratio = batch.scored(stats.logp - batch.old_logp).clamp(-20, 20).exp()
        k3 = away.exp() - away - 1
        policy = self.surrogate(ratio, batch.scored(batch.advantage), stats.logp)
        return self.loss(batch, loss=policy + self.kl * k3, metrics={"kl": k3})


class GSPO(Objective[RolloutBatch]):
    """Mean over samples of PPO's loss, with one ratio per sample: the geometric mean of its tokens' ratios."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "advantage"})
    per = {"loss": sequences}

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = batch.mean_by_sequence(stats.logp - batch.old_logp).clamp(-20, 20).exp()
        advantage = batch.mean_by_sequence(batch.advantage)
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - 3e-4, 1 + 4e-4))
        return self.loss(batch, loss=loss, metrics={"ratio": ratio})


POLICY_GRADIENTS: tuple[type[Objective[Any]], ...] = (Rolled, CISPO, DualClip, Reinforce, Winners, GRPO, GSPO)
