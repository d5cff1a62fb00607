"""Credit for PPO: a reward for every token, then generalised advantages, then whitening."""

from dataclasses import dataclass
from typing import ClassVar

from alignlab.advantage import Advantage, generalized_advantage, token_rewards, whiten
from alignlab.batch import RolloutBatch
from alignlab.optimum import Credit, NoneKnown


@dataclass(frozen=True)
class GAE(Advantage):
    """Generalised advantages of a token-level reward.

    Every response token pays `beta * (old_logp - reference_logp)`; the last one earns the answer's reward. From
    these come the advantages A, the returns `R = A + old_value`, and only then A is whitened, over the response
    tokens of the whole buffer. (Whitened first, the critic would be taught the wrong scale.)

    Args:
        beta: price of leaving the reference, reward units per nat. The optimum is
            `pi* ~ pi_ref * exp(reward / beta)`.
        gamma: discount per token; below 1 the optimum is no longer pi*.
        lam: 0 trusts the critic alone, 1 the rewards alone.
        missing_eos_penalty: reward units off for an answer that never stopped.
        whiten: advantages to mean 0 and variance 1 over the buffer's response tokens.

    Source: Schulman et al. 2016, arXiv:1506.02438; order and scope as in Huang et al. 2024, arXiv:2403.17031.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "finished", "old_logp", "reference_logp", "old_value"})
    beta: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    missing_eos_penalty: float = 1.0
    whiten: bool = True

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"GAE: beta must be >= 0, got {self.beta}; it is a price")
        if self.missing_eos_penalty < 0:
            raise ValueError(f"GAE: missing_eos_penalty must be >= 0, got {self.missing_eos_penalty}; it is taken off")
        for name, value in (("gamma", self.gamma), ("lam", self.lam)):
            if not 0 <= value <= 1:
                raise ValueError(f"GAE: {name} must be in [0, 1], got {value}")

    def optimum(self) -> Credit | NoneKnown:
        """Reward less beta KL; an exact critic leaves any `lam` unbiased."""
        if self.gamma != 1:
            return NoneKnown("a discount below 1 pays an answer less the longer it is")
        return Credit("reward", self.beta, self.missing_eos_penalty, whitened=self.whiten)

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        rewards = token_rewards(rollouts, self.beta, self.missing_eos_penalty)
        values = rollouts.old_value.masked_fill(~rollouts.response_mask, 0.0)
        advantage = generalized_advantage(rewards, values, rollouts, self.gamma, self.lam)
        returns = advantage + values
        if self.whiten:
            advantage = whiten(advantage, rollouts.weight_by_token())
        return rollouts.with_tokens(advantage=advantage, returns=returns)
