"""The clipped policy and value losses of PPO."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from alignlab import Loss, Objective, RolloutBatch, TokenStats
from alignlab.objective import Weights, clipped_surrogate, log_ratio_to_old, tokens
from alignlab.optimum import Declared, NoneKnown, PolicyGradient


@dataclass(frozen=True)
class PPO(Objective[RolloutBatch]):
    """Make tokens likelier that did better than forecast, and the others less likely, close to the policy that sampled.

    Two terms, each a mean over response tokens:

        policy: max(-A * ratio, -A * clamp(ratio, 1 - clip, 1 + clip)) - entropy_coefficient * entropy
        value:  value_coefficient * 0.5 * max((V - R)^2, (V_clipped - R)^2)

    with `ratio = exp(clamp(logp - old_logp, -20, 20))`, advantage A, returns R, and V_clipped within `value_clip`
    of the old forecast. There is no KL term here: PPO's KL is paid inside the reward (see `GAE`).

    Args:
        clip: how far the ratio may leave 1 before its gradient stops; 0.1 to 0.3 is usual.
        value_clip: how far the forecast may leave the old one, reward units; null does not clip.
        value_coefficient: weight of the value term; with a critic of its own only its learning rate scales with it.
        entropy_coefficient: reward for spread, per nat and token; 0 for language models, as a rule.

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; details as in Huang et al. 2024, arXiv:2403.17031.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"logp", "value", "entropy"})
    reads: ClassVar[frozenset[str]] = frozenset({"old_logp", "old_value", "advantage", "returns"})
    per: ClassVar[Mapping[str, Weights]] = {"policy": tokens, "value": tokens}
    clip: float = 0.2
    value_clip: float | None = 0.2
    value_coefficient: float = 0.1
    entropy_coefficient: float = 0.0

    def __post_init__(self) -> None:
        if self.clip <= 0:
            raise ValueError(f"PPO: clip must be > 0, got {self.clip}; at 0 nothing could be learnt")
        if self.value_clip is not None and self.value_clip <= 0:
            raise ValueError(f"PPO: value_clip must be > 0 or null, got {self.value_clip}")
        if self.value_coefficient < 0 or self.entropy_coefficient < 0:
            raise ValueError(
                f"PPO: value_coefficient and entropy_coefficient must be >= 0, got {self.value_coefficient} and "
                f"{self.entropy_coefficient}"
            )

    def optimum(self) -> Declared:
        """On policy it is the policy gradient, a mean over tokens."""
        if self.entropy_coefficient:
            return NoneKnown("the reward for entropy is not part of reward less beta KL")
        return PolicyGradient("token_mean")

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        policy, policy_metrics = self._policy(stats, batch)
        value, value_metrics = self._value(stats, batch)
        return self.loss(batch, policy=policy, value=value, metrics={**policy_metrics, **value_metrics})

    def _policy(self, stats: TokenStats, batch: RolloutBatch) -> tuple[Tensor, dict[str, Tensor]]:
        log_ratio = log_ratio_to_old(stats, batch)
        ratio = log_ratio.exp()
        entropy = batch.scored(stats.entropy)
        loss, clipped = clipped_surrogate(ratio, batch.scored(batch.advantage), self.clip, self.clip)
        if self.entropy_coefficient:
            loss = loss - self.entropy_coefficient * entropy
        return loss, {
            "ratio": ratio,
            "clip_fraction": clipped,
            # k3 of Schulman's note, an estimate of KL(old || now) that is never negative. As a metric it is sound.
            "approx_kl": ratio - 1 - log_ratio,
            "entropy": entropy,
        }

    def _value(self, stats: TokenStats, batch: RolloutBatch) -> tuple[Tensor, dict[str, Tensor]]:
        value, old = batch.scored(stats.value), batch.scored(batch.old_value)
        returns = batch.scored(batch.returns)
        near = value if self.value_clip is None else old + (value - old).clamp(-self.value_clip, self.value_clip)
        error, near_error = (value - returns).square(), (near - returns).square()
        return self.value_coefficient * 0.5 * torch.maximum(error, near_error), {
            "value_error": value - returns,
            "value_error_squared": error,
            "returns": returns,
            "returns_squared": returns.square(),
            "value_clip_fraction": (near_error > error).to(value.dtype),
        }
