"""PPO: rollouts become advantages against a critic, which is trained next to the policy."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from alignlab import Artifact, RolloutBatch, StageContext, TokenStats
from alignlab.seed import fold_in
from alignlab.training import ParameterGroup, PolicyGradientStage, measure_together
from alignlab_ppo.critic import Critic

_CRITIC = 13
"""Stream of random numbers: the critic's adapter."""


class PPOStage(PolicyGradientStage):
    """Train a policy by sampled answers and a reward, kept close to the initial policy by a price on the KL.

    The reward is normalised once, by the mean and standard deviation over the first buffer, when the policy still is
    the reference. Buffer by buffer, the price of a nat would drift as the policy improves, and with it the optimum.

    Args:
        normalize_reward: see above; false takes rewards as they are.
        critic_lr: peak learning rate of the critic; null takes the optimizer's.
        critic_clip_norm: largest gradient norm of the critic; null takes the loop's.
        inputs: `policy`, the initial policy, also the frozen KL reference; `reward`, a reward model, which the critic
            starts from.
    """

    VERSION: ClassVar[str] = "1"
    PROVIDES: ClassVar[frozenset[str]] = PolicyGradientStage.PROVIDES | {"old_value", "returns"}

    TRAINED_MODELS: ClassVar[int] = 2
    FROZEN_MODELS: ClassVar[int] = 2

    critic: Critic | None
    """None where neither the objective nor the advantage asks for values."""

    def __init__(
        self,
        *,
        normalize_reward: bool = True,
        critic_lr: float | None = None,
        critic_clip_norm: float | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.normalize_reward = normalize_reward
        self.critic_lr = critic_lr
        self.critic_clip_norm = critic_clip_norm
        if critic_lr is not None and critic_lr < 0:
            raise ValueError(f"PPOStage: critic_lr must be >= 0 or null, got {critic_lr}")
        if critic_clip_norm is not None and critic_clip_norm <= 0:
            raise ValueError(f"PPOStage: critic_clip_norm must be > 0 or null, got {critic_clip_norm}")
        self._scale: tuple[float, float] | None = None if normalize_reward else (0.0, 1.0)

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """As every online stage; and the critic, where values are asked for."""
        super().prepare(inputs, context)
        self.critic = None
        if "value" in self.objective.needs or "old_value" in self.reads():
            start = inputs["policy"], inputs.get("reward")
            seed = fold_in(self.seed, _CRITIC)
            self.critic = Critic.start(self.policy, *start, context.runtime.dtype, self.adapter, seed)
            context.tracker.say(f"the critic starts from the {self.critic.origin}")

    def modules(self) -> Mapping[str, nn.Module]:
        """The policy and the critic."""
        return super().modules() if self.critic is None else {**super().modules(), "critic": self.critic}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Policy and critic, stepped together and clipped separately."""
        if self.critic is None:
            return super().parameter_groups()
        critic = [p for p in self.critic.parameters() if p.requires_grad]
        return [*super().parameter_groups(), ParameterGroup("critic", critic, self.critic_lr, self.critic_clip_norm)]

    def token_stats(self, batch: RolloutBatch) -> TokenStats:
        """The policy's statistics and the critic's values."""
        needs = self.objective.needs - {"value"}
        stats = self.policy.token_stats(batch, needs, teacher=self.teacher)
        if self.critic is None or "value" not in self.objective.needs:
            return stats
        return stats | self.critic.token_stats(batch, frozenset({"value"}))

    def reads_beforehand(self) -> frozenset[str]:
        """Extras that the advantage reads, unless a subclass makes more of its rollouts."""
        own = type(self).train_on is PPOStage.train_on
        return self.advantage.reads if own else super().reads_beforehand()

    def train_on(self, rollouts: RolloutBatch, step: int) -> RolloutBatch:
        """The rollouts with normalised rewards, the critic's forecasts, advantages and returns."""
        reward = rollouts.sequence("reward")
        mean, scale = self._calibrate(reward)
        rollouts = rollouts.with_sequences(reward=(reward - mean) / scale)
        if self.critic is not None:
            runtime, budget = self.context.runtime, self.loop.micro_batch_tokens
            value = measure_together(self.critic, rollouts, runtime, budget, of="value")
            rollouts = rollouts.with_tokens(old_value=value)
        found = super().train_on(rollouts, step)
        if self.critic is not None and "returns" in found.per_token:
            self.log(step, {"explained_variance": explained_variance(found)})
        return found

    def _calibrate(self, reward: Tensor) -> tuple[float, float]:
        """Mean that is subtracted from a reward, and scale that it is then divided by; fixed by the first buffer."""
        if self._scale is None:
            spread = float(reward.double().std(correction=0))
            self._scale = float(reward.double().mean()), spread if spread > 1e-6 else 1.0
            if self.critic is not None:
                self.critic.normalize(*self._scale)
        return self._scale

    def state(self) -> dict[str, Any]:
        """The buffer and the reward's scale."""
        return {**super().state(), "scale": self._scale and list(self._scale)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue with both."""
        super().load_state(state)
        self._scale = None if state["scale"] is None else (state["scale"][0], state["scale"][1])


def explained_variance(rollouts: RolloutBatch) -> float:
    """Share of the returns' variance over response tokens that the critic foresaw; 1 is all, below 0 is harmful."""
    mask = rollouts.response_mask
    returns, error = rollouts.returns[mask], (rollouts.returns - rollouts.old_value)[mask]
    variance = returns.var(correction=0)
    return float(1 - error.var(correction=0) / variance) if variance > 0 else 0.0
