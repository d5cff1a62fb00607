"""The critic: a second model that forecasts, before each token, the rewards still to come.

Axes: T tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.artifact import Artifact
from alignlab.batch import Batch
from alignlab.policy import LoRA, Policy, trainable
from alignlab.stats import TokenStats

_VALUE = frozenset({"value"})


class Critic(nn.Module):
    """A model with a scalar head and a bias, in (normalised) reward units.

    Args:
        policy: with a scalar head; its language head takes no part.
        forecasts_reward: it was a reward model, so that its scores are raw rewards already.
    """

    def __init__(self, policy: Policy, forecasts_reward: bool) -> None:
        super().__init__()
        self.policy = policy
        self.forecasts_reward = forecasts_reward
        self.bias = nn.Parameter(torch.zeros(1, dtype=next(policy.parameters()).dtype))
        policy.freeze_idle(_VALUE)

    @property
    def origin(self) -> str:
        """Name of the model that it started from, for messages."""
        return "reward model" if self.forecasts_reward else "policy"

    @classmethod
    def start(
        cls,
        policy: Policy,
        start: Artifact,
        reward: Artifact | None,
        dtype: torch.dtype,
        adapter: LoRA | None = None,
        seed: int = 0,
    ) -> "Critic":
        """A critic that starts from a reward model of one attribute; without one, from the policy with a head of zeros.

        Args:
            policy: whose tokens it will read: a reward model with another vocabulary cannot.
            start: what the policy was loaded from.
            reward: the reward model, where there is one.
            dtype: of its weights.
            adapter: is trained in place of all weights, as the policy's is.
            seed: of the adapter.
        """
        if reward is not None:
            model = Policy.load(reward, dtype)
            is_scalar = model.score_head is not None and len(model.score_head.attributes) == 1
            if is_scalar and model.tokenizer.get_vocab() == policy.tokenizer.get_vocab():
                return cls(trainable(model, adapter, seed), forecasts_reward=True)
        model = Policy.load(start, dtype)
        model.add_score_head(0)
        assert model.score_head is not None
        nn.init.zeros_(model.score_head.weight)
        return cls(trainable(model, adapter, seed), forecasts_reward=False)

    @torch.no_grad()
    def normalize(self, mean: float, scale: float) -> None:
        """Forecast `(reward - mean) / scale` from now on, where it forecast the reward."""
        if self.forecasts_reward:
            assert self.policy.score_head is not None
            self.policy.score_head.weight.div_(scale)
            self.bias.sub_(mean).div_(scale)

    def token_stats(self, batch: Batch, needs: frozenset[str] = _VALUE) -> TokenStats:
        """The critic's `value`, the only statistic that it gives."""
        return TokenStats({"value": self(batch)})

    def forward(self, batch: Batch) -> Float[Tensor, "T"]:
        """The forecast before each token, from the tokens before it; 0 at position 0."""
        value = self.policy.token_stats(batch, _VALUE).value
        return value + self.bias.to(value.dtype) * (batch.position > 0)
