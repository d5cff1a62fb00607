"""Importance weights for answers that another program than the trainer has sampled: a part of any policy gradient."""

from typing import ClassVar

from alignlab import Loss, Mean, Objective, RolloutBatch, TokenStats, Wrapped
from alignlab.objective import log_ratio_to_sampler, tokens
from alignlab.optimum import Declared


class TruncatedImportance(Wrapped[RolloutBatch]):
    """Any policy gradient, each token weighted by `min(exp(old_logp - sampler_logp), cap)`, without gradient (TIS).

    `old_logp` is the trainer's log-probability of a sampled token and `sampler_logp` the sampler's own. The two are of
    the same weights, and differ where the sampler computes otherwise (another precision, another kernel). Without the
    weight the gradient is an expectation over the sampler's answers in place of the policy's; the cap bounds what a
    token that the sampler found unlikely can do. A KL term of the loss is left as it is.

    The weight is taken into the advantage. That is the loss times the weight, per token, because policy gradients and
    their clipped surrogates are proportional to a positive factor of the advantage; where the advantage is averaged
    over an answer first (`GSPO`), so is the weight.

    Args:
        objective: a policy gradient; it must read `advantage`.
        cap: C, largest weight; >= 1. 2 is usual.

    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (TIS); by tokens,
    as in verl's rollout correction. Truncation: Ionides 2008, J. Comput. Graph. Stat. 17(2).
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, objective: Objective[RolloutBatch], cap: float = 2.0) -> None:
        super().__init__(objective)
        self.cap = cap
        if "advantage" not in objective.reads:
            raise ValueError(
                f"TruncatedImportance: {type(objective).__name__} reads no advantage, so there is nothing to weigh; "
                f"wrap a policy gradient"
            )
        if cap < 1:
            raise ValueError(
                f"TruncatedImportance: cap must be >= 1, got {cap}; the weight is 1 where sampler and trainer agree"
            )
        self.reads = objective.reads | {"old_logp", "sampler_logp"}  # type: ignore[misc]  # of this object

    def optimum(self) -> Declared:
        """That of the wrapped objective, where the sampler is the trainer."""
        return self.objective.optimum()

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio = log_ratio_to_sampler(batch).exp().detach()
        weight = ratio.clamp_max(self.cap)
        found = self.objective(stats, batch.with_tokens(advantage=batch.advantage * weight))
        each = tokens(batch)
        own = {
            "importance_weight": Mean.of(weight, each),
            "truncated_fraction": Mean.of((ratio > self.cap).to(ratio.dtype), each),
        }
        return Loss(found.terms, {**found.metrics, **own})
