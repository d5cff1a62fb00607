"""Advantages without a critic: relative to the other answers to the same prompt, or to the whole buffer."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from alignlab import Advantage, RolloutBatch
from alignlab.advantage import (
    generalized_advantage,
    group_mean,
    others_mean,
    paid,
    to_tokens,
    token_rewards,
    whiten,
    without_signal,
)
from alignlab.optimum import Credit
from alignlab_grpo.kl import check_prices


@dataclass(frozen=True)
class GroupRelative(Advantage):
    """Each answer's reward relative to its group, in standard deviations: `(r - mean) / (std + eps)`, at every token.

    Advantages of a group whose rewards are equal up to rounding are 0.

    Args:
        scale: divide by the standard deviation; false leaves reward units (Dr. GRPO).
        eps: added to the standard deviation, reward units.

    Source: Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, section 4.1.2; without the division: Liu et al. 2025,
    arXiv:2503.20783.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "group"})
    scale: bool = True
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if self.eps < 0:
            raise ValueError(f"GroupRelative: eps must be >= 0, got {self.eps}")

    def optimum(self) -> Credit:
        """The reward relative to the group's mean."""
        return Credit("standardised", eps=self.eps) if self.scale else Credit("centred")

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        reward, group = rollouts.sequence("reward"), rollouts.group
        # In double precision: rewards of 1e20 have squares that single precision cannot hold.
        centred = reward.double() - group_mean(reward.double(), group)
        if self.scale:
            centred = centred / (group_mean(centred.square(), group).sqrt() + self.eps)
        advantage = torch.where(without_signal(reward, group), 0.0, centred).to(reward.dtype)
        return rollouts.with_tokens(advantage=to_tokens(advantage, rollouts))


@dataclass(frozen=True)
class LeaveOneOut(Advantage):
    """Each answer's reward less the mean of the *other* answers to its prompt, with the KL paid in the reward.

    An answer is paid `reward - beta * sum(old_logp - reference_logp)`, less the penalty where it never stopped. The
    baseline does not depend on the answer itself, so the gradient is unbiased for reward less beta * KL.

    Args:
        beta: price of leaving the reference, reward units per nat.
        missing_eos_penalty: reward units off for an answer that never stopped.

    Source: Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "finished", "group", "old_logp", "reference_logp"})
    beta: float = 0.2
    missing_eos_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_prices(self, "beta", "missing_eos_penalty")

    def optimum(self) -> Credit:
        """Reward less beta KL: the others' mean does not depend on the answer."""
        return Credit("reward", self.beta, self.missing_eos_penalty)

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        pay = paid(rollouts, self.beta, self.missing_eos_penalty)
        advantage = pay - others_mean(pay, rollouts.group)
        signal = ~without_signal(pay, rollouts.group)
        return rollouts.with_tokens(advantage=to_tokens(advantage * signal, rollouts))


@dataclass(frozen=True)
class WhitenedReturns(Advantage):
    """Reward less KL still to be paid from each token on, standardised over the buffer's response tokens (REINFORCE++).

    Every response token pays `beta * (old_logp - reference_logp)`, and the last one earns the answer's reward, less the
    penalty where it never stopped. A token's return is the sum from it on; returns then get mean 0 and variance 1.
    There are no groups, so one answer per prompt is enough. The baseline is the same for all prompts: use it with
    objectives that weigh the tokens of an answer alike (`DAPO`, `DrGRPO`, `Reinforce`).

    Args:
        beta: price of leaving the reference, reward units per nat.
        missing_eos_penalty: reward units off for an answer that never stopped.

    Source: Hu et al. 2025, arXiv:2501.03262, section 3.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "finished", "old_logp", "reference_logp"})
    beta: float = 0.2
    missing_eos_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_prices(self, "beta", "missing_eos_penalty")

    def optimum(self) -> Credit:
        """Reward less beta KL: what was paid before a token does not depend on it."""
        return Credit("to_go", self.beta, self.missing_eos_penalty, whitened=True)

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        rewards = token_rewards(rollouts, self.beta, self.missing_eos_penalty)
        to_go = generalized_advantage(rewards, torch.zeros_like(rewards), rollouts, gamma=1.0, lam=1.0)
        return rollouts.with_tokens(advantage=whiten(to_go, rollouts.weight_by_token()))
