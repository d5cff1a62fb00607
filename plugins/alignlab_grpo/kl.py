"""The KL to the reference, as a term of the loss or as a price in the reward: parts that combine with any method.

Axes: T tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import Advantage, Loss, Objective, RolloutBatch, TokenStats
from alignlab.advantage import paid
from alignlab.objective import Weights, log_ratio_to_old, log_ratio_to_reference, sequences, tokens
from alignlab.optimum import Average, Credit, Declared, NoneKnown, PolicyGradient

Estimator: TypeAlias = Literal["k1", "k2", "k3", "unbiased"]


def k3(log_ratio: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
    """`exp(-d) - 1 + d` of a log-ratio d to the reference: never negative, and in expectation the KL, nats."""
    return torch.expm1(-log_ratio) + log_ratio


_ESTIMATES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": lambda d, ratio: d,
    "k2": lambda d, ratio: d.square() / 2,
    "k3": lambda d, ratio: k3(d),
    "unbiased": lambda d, ratio: ratio * k3(d),
}
_AVERAGES: Mapping[str, tuple[Weights, Callable[[RolloutBatch, Tensor], Tensor]]] = {
    "answer_sum": (sequences, RolloutBatch.sum_by_sequence),
    "answer_mean": (sequences, RolloutBatch.mean_by_sequence),
    "token_mean": (tokens, RolloutBatch.scored),
}


@dataclass(frozen=True)
class KLToReference(Objective[RolloutBatch]):
    """An estimate of KL(policy || reference) at each response token, to be added to a policy gradient.

    Mean over tokens of the estimate, or mean over sequences of its sum or mean over their tokens: see `over`.
    With `d = logp - reference_logp`, on answers that the policy sampled:

        k1        d                   no gradient in expectation: as a loss it does nothing (as a price in the reward
                                      it is the right one: `KLInReward`)
        k2        d^2 / 2             gradient d grad(logp): that of the next token's KL
        k3        exp(-d) - 1 + d     gradient (1 - exp(-d)) grad(logp): that of KL(reference || policy)
        unbiased  k3 * ratio          gradient d grad(logp), as k2's; off policy too it is the next token's KL, since
                                      the ratio to the policy that sampled is differentiated as well

    None of them sees how a token changes the KL of those that follow: they end close to
    pi* ~ pi_ref exp(r / beta), and at it for answers of one token only (k2, unbiased). The KL in the reward ends there.

    Args:
        estimator: see above.
        over: what the estimate is a mean over, as the objective that it is added to: "answer_sum" for `Reinforce` and
            `DrGRPO`, "answer_mean" for `GRPO` and `GSPO`, "token_mean" for `DAPO`, `CISPO` and PPO.

    Source: Schulman 2020 (k1, k2, k3), http://joschu.net/blog/kl-approx.html; unbiased: DeepSeek-AI 2025
    (DeepSeek-V3.2), arXiv:2512.02556, section 3.1.
    """

    VERSION: ClassVar[str] = "1"
    estimator: Estimator = "unbiased"
    over: Average = "token_mean"

    def __post_init__(self) -> None:
        reads = {"reference_logp", "old_logp"} if self.estimator == "unbiased" else {"reference_logp"}
        object.__setattr__(self, "reads", frozenset(reads))
        object.__setattr__(self, "per", {"loss": _AVERAGES[self.over][0]})

    def optimum(self) -> Declared:
        """A KL term to be added; on policy the unbiased estimator has k2's gradient."""
        if self.estimator == "k3":
            return PolicyGradient(self.over, beta=1.0, estimator="k3", credit=0.0)
        if self.estimator != "k1":
            return PolicyGradient(self.over, beta=1.0, estimator="k2", credit=0.0)
        if self.over == "answer_mean":
            return NoneKnown("averaged within answers, k1 makes answers longer or shorter and keeps none close")
        return PolicyGradient(self.over, credit=0.0)

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        log_ratio = log_ratio_to_reference(stats, batch)
        is_weighted = "old_logp" in self.reads
        ratio = log_ratio_to_old(stats, batch).exp() if is_weighted else torch.ones_like(log_ratio)
        kl = _ESTIMATES[self.estimator](log_ratio, ratio)
        return self.loss(batch, loss=_AVERAGES[self.over][1](batch, kl), metrics={"kl": batch.mean_by_sequence(kl)})


@dataclass(frozen=True)
class KLInReward(Advantage):
    """Any advantage, of rewards that the KL to the reference is taken off: `reward - beta * sum(k1) - penalty`.

    The sum runs over all response tokens of an answer, of `k1 = old_logp - reference_logp`. With a policy gradient
    without a KL in its loss the fixed point is pi* ~ pi_ref exp(r / beta): there every answer to a prompt is paid the
    same.

    Args:
        advantage: credits the rewards that are left.
        beta: price of leaving the reference, reward units per nat.
        missing_eos_penalty: reward units off for an answer that never stopped.

    Source: Stiennon et al. 2020, arXiv:2009.01325, section 3.4; Ouyang et al. 2022, arXiv:2203.02155, eq. 2.
    """

    VERSION: ClassVar[str] = "1"
    advantage: Advantage
    beta: float = 0.2
    missing_eos_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_prices(self, "beta", "missing_eos_penalty")
        own = {"reward", "finished", "old_logp", "reference_logp"}
        object.__setattr__(self, "reads", self.advantage.reads | own)

    def optimum(self) -> Credit | NoneKnown:
        """As the advantage, with its own prices on top of those that it may have."""
        credit = self.advantage.optimum()
        if isinstance(credit, NoneKnown):
            return credit
        return replace(credit, beta=credit.beta + self.beta, penalty=credit.penalty + self.missing_eos_penalty)

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        reward = paid(rollouts, self.beta, self.missing_eos_penalty)
        found = self.advantage(rollouts.with_sequences(reward=reward))
        return found.with_sequences(reward=rollouts.sequence("reward"))


def check_prices(owner: object, *names: str) -> None:
    """Refuse prices below 0.

    Raises:
        ValueError: one of the named attributes is negative.
    """
    for name in names:
        if getattr(owner, name) < 0:
            raise ValueError(f"{type(owner).__name__}: {name} must be >= 0, got {getattr(owner, name)}; it is a price")
