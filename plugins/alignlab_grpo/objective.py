"""Policy-gradient losses on rollouts that carry advantages: weighted by a ratio to the policy that sampled, or plain.

Axes: T tokens, S sequences.
"""

from dataclasses import dataclass
from typing import ClassVar

from alignlab import Loss, Objective, RolloutBatch, TokenStats
from alignlab.objective import clipped_surrogate, log_ratio_to_old, log_ratio_to_reference, sequences, tokens
from alignlab.optimum import Declared, PolicyGradient
from alignlab_grpo.kl import check_prices, k3


@dataclass(frozen=True)
class GRPO(Objective[RolloutBatch]):
    """Clipped policy gradient with a KL term in the loss.

    Mean over sequences of the mean over their response tokens of
    `max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)) + beta * k3`, where `k3 = exp(d) - 1 - d` with
    `d = reference_logp - logp`. Its fixed point is *not* pi* ~ pi_ref exp(r / beta): on the policy that sampled, k3 as
    a loss has the gradient of KL(pi_ref || pi), so that over one-token answers it is `beta pi_ref / (lambda - r)`.

    Args:
        clip: how far the ratio may leave 1 before its gradient stops; 0.1 to 0.3 is usual.
        beta: weight of the KL term, per nat; 0 leaves it out of the loss.

    Source: Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, eq. 3 and 4.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "reference_logp", "advantage"})
    per = {"loss": sequences}
    clip: float = 0.2
    beta: float = 0.04

    def __post_init__(self) -> None:
        _check_clip("GRPO", clip=self.clip)
        check_prices(self, "beta")

    def optimum(self) -> Declared:
        """On policy it is the policy gradient with k3 in the loss, averaged within each answer."""
        return PolicyGradient("answer_mean", beta=self.beta, estimator="k3")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio, kl = log_ratio_to_old(stats, batch).exp(), k3(log_ratio_to_reference(stats, batch))
        loss, clipped = clipped_surrogate(ratio, batch.scored(batch.advantage), self.clip, self.clip)
        metrics = {
            "ratio": batch.mean_by_sequence(ratio),
            "clip_fraction": batch.mean_by_sequence(clipped),
            "k3": batch.mean_by_sequence(kl),
        }
        return self.loss(batch, loss=batch.mean_by_sequence(loss + self.beta * kl), metrics=metrics)


@dataclass(frozen=True)
class DrGRPO(Objective[RolloutBatch]):
    """Clipped policy gradient whose token weights depend on no length: sums over tokens, divided by a constant.

    Mean over sequences of the sum over their response tokens of
    `max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)) / length`. Use it with advantages in reward units
    (`group_relative` with `scale: false`). On policy it is the policy gradient: with the KL paid in the reward its
    fixed point is pi* ~ pi_ref exp(r / beta). Next to it, a KL term that is summed over answers costs
    `weight * length` per nat.

    Args:
        clip: how far the ratio may leave 1 before its gradient stops; 0.1 to 0.3 is usual.
        length: what sums over tokens are divided by, tokens; the longest answer (`sampling.max_new_tokens`) is usual.

    Source: Liu et al. 2025, arXiv:2503.20783, section 3.2.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "advantage"})
    per = {"loss": sequences}
    clip: float = 0.2
    length: float = 32.0

    def __post_init__(self) -> None:
        _check_clip("DrGRPO", clip=self.clip)
        if self.length <= 0:
            raise ValueError(f"DrGRPO: length must be > 0, got {self.length}; sums over tokens are divided by it")

    def optimum(self) -> Declared:
        """On policy it is the policy gradient, summed over tokens."""
        return PolicyGradient("answer_sum", credit=1 / self.length)

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = log_ratio_to_old(stats, batch).exp()
        loss, clipped = clipped_surrogate(ratio, batch.scored(batch.advantage), self.clip, self.clip)
        metrics = {"ratio": batch.mean_by_sequence(ratio), "clip_fraction": batch.mean_by_sequence(clipped)}
        return self.loss(batch, loss=batch.sum_by_sequence(loss) / self.length, metrics=metrics)


@dataclass(frozen=True)
class DAPO(Objective[RolloutBatch]):
    """Clipped policy gradient with more room above than below, every token of the step counting alike.

    Mean over response tokens of `max(-A * ratio, -A * clamp(ratio, 1 - clip_low, 1 + clip_high))`. With two equal
    sides it is PPO's policy term, and REINFORCE++'s. On policy it is the policy gradient: with the KL paid in the
    reward its fixed point is pi* ~ pi_ref exp(r / beta).

    Args:
        clip_low: how far below 1 the ratio may fall before its gradient stops.
        clip_high: how far above 1 it may rise; more than `clip_low`, so that unlikely tokens can become likely.

    Source: Yu et al. 2025, arXiv:2503.14476, eq. 8 to 12.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "advantage"})
    per = {"loss": tokens}
    clip_low: float = 0.2
    clip_high: float = 0.28

    def __post_init__(self) -> None:
        _check_clip("DAPO", clip_low=self.clip_low, clip_high=self.clip_high)

    def optimum(self) -> Declared:
        """On policy it is the policy gradient, a mean over tokens."""
        return PolicyGradient("token_mean")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = log_ratio_to_old(stats, batch).exp()
        loss, clipped = clipped_surrogate(ratio, batch.scored(batch.advantage), self.clip_low, self.clip_high)
        return self.loss(batch, loss=loss, metrics={"ratio": ratio, "clip_fraction": clipped})


@dataclass(frozen=True)
class GSPO(Objective[RolloutBatch]):
    """Clipped policy gradient of whole answers: one ratio per answer, the geometric mean of those of its tokens.

    Mean over sequences of `max(-A * ratio, -A * clamp(ratio, 1 - clip_low, 1 + clip_high))`, with
    `ratio = exp(mean over response tokens of (logp - old_logp))` and A the answer's advantage. On policy it is the
    policy gradient averaged within each answer: with the KL paid in the reward its fixed point is
    pi* ~ pi_ref exp(r / beta).

    Args:
        clip_low: how far below 1 the ratio may fall before its gradient stops; a mean over tokens moves little.
        clip_high: how far above 1 it may rise.

    Source: Zheng et al. 2025, arXiv:2507.18071, eq. 5 to 7.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "advantage"})
    per = {"loss": sequences}
    clip_low: float = 3e-4
    clip_high: float = 4e-4

    def __post_init__(self) -> None:
        _check_clip("GSPO", clip_low=self.clip_low, clip_high=self.clip_high)

    def optimum(self) -> Declared:
        """On policy it is the policy gradient, averaged within each answer."""
        return PolicyGradient("answer_mean")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = batch.mean_by_sequence(log_ratio_to_old(stats, batch)).exp()
        advantage = batch.mean_by_sequence(batch.advantage)
        loss, clipped = clipped_surrogate(ratio, advantage, self.clip_low, self.clip_high)
        return self.loss(batch, loss=loss, metrics={"ratio": ratio, "clip_fraction": clipped})


@dataclass(frozen=True)
class CISPO(Objective[RolloutBatch]):
    """Policy gradient weighted by a cut ratio without gradient: every token keeps one, however far it has moved.

    Mean over response tokens of `-A * min(ratio, cap) * logp`, where the ratio is a constant. On policy it is the
    policy gradient: with the KL paid in the reward its fixed point is pi* ~ pi_ref exp(r / beta).

    Args:
        cap: largest ratio that counts, `1 + eps_high` of the paper; there is no lower side. 2 to 5 is usual.

    Source: MiniMax 2025 (MiniMax-M1), arXiv:2506.13585, eq. 4 and 5.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "advantage"})
    per = {"loss": tokens}
    cap: float = 5.0

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError(f"CISPO: cap must be >= 1, got {self.cap}; the ratio is 1 on the policy that sampled")

    def optimum(self) -> Declared:
        """On policy it is the policy gradient, a mean over tokens."""
        return PolicyGradient("token_mean")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = log_ratio_to_old(stats, batch).exp().detach()
        loss = -batch.scored(batch.advantage) * ratio.clamp_max(self.cap) * stats.logp
        metrics = {"ratio": ratio, "cut_fraction": (ratio > self.cap).to(ratio.dtype)}
        return self.loss(batch, loss=batch.scored(loss), metrics=metrics)


@dataclass(frozen=True)
class Reinforce(Objective[RolloutBatch]):
    """Plain policy gradient: mean over sequences of the sum over their response tokens of `-A * logp`.

    With an advantage that pays the KL in the reward, its fixed point is pi* ~ pi_ref exp(r / beta). There is no ratio
    to correct for a policy that has moved since it sampled: take one step per buffer (`epochs: 1`, and a
    `loop.batch_size` of all of its answers).

    Source: Williams 1992; for language models Ahmadian et al. 2024, arXiv:2402.14740, eq. 6.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})
    per = {"loss": sequences}

    def optimum(self) -> Declared:
        """The policy gradient, summed over tokens."""
        return PolicyGradient("answer_sum")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=-batch.sum_by_sequence(batch.scored(batch.advantage) * stats.logp))


def _check_clip(owner: str, **sides: float) -> None:
    for name, value in sides.items():
        if value <= 0:
            raise ValueError(f"{owner}: {name} must be > 0, got {value}; at 0 nothing could be learnt")
