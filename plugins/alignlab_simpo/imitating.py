"""Losses without a reference that also imitate the chosen answers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import logsigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, chosen_tokens, pairs, preferred
from alignlab.optimum import Declared, NoneKnown

CERTAIN = -1e-6
"""Nats per token above which an answer counts as certain: at 0 its odds are infinite."""


@dataclass(frozen=True)
class ORPO(Objective[PreferenceBatch]):
    """Imitate chosen answers, and prefer them by their odds: two terms.

    `nll` is the mean over the tokens of chosen answers of `-log p`; `odds` is the mean over pairs of
    `-weight * log sigmoid(log odds(chosen) - log odds(rejected))`, with `odds = p / (1 - p)` of the answer's
    probability per token (the geometric mean over its tokens).

    Args:
        weight: of the odds against the imitation (lambda in the paper); > 0.

    Source: Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7.
    """

    VERSION: ClassVar[str] = "1"
    per = {"nll": chosen_tokens, "odds": pairs}
    weight: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, weight="at 0 it is imitation alone")

    def optimum(self) -> Declared:
        """None."""
        return NoneKnown("it imitates chosen answers and prefers them, which lead to different policies")

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        likelihood = batch.mean_by_sequence(stats.logp).clamp_max(CERTAIN)
        log_odds = likelihood - torch.log(-torch.expm1(likelihood))
        margin = batch.chosen(log_odds) - batch.rejected(log_odds)
        metrics = {"margin": margin, "accuracy": preferred(margin)}
        return self.loss(batch, nll=-stats.logp, odds=-self.weight * logsigmoid(margin), metrics=metrics)


@dataclass(frozen=True)
class CPO(Objective[PreferenceBatch]):
    """Prefer chosen answers as DPO with a uniform reference does, and imitate them: two terms.

    `preference` is the mean over pairs of `-log sigmoid(beta * (logp(chosen) - logp(rejected)))`, each summed over the
    response tokens; `nll` is the mean over the tokens of chosen answers of `-weight * log p` (per token, as
    the authors' code has it; the paper writes it per answer).

    Args:
        beta: scale of the difference, per nat; > 0.
        weight: of the imitation; > 0.

    Source: Xu et al. 2024, arXiv:2401.08417, section 3.
    """

    VERSION: ClassVar[str] = "1"
    per = {"preference": pairs, "nll": chosen_tokens}
    beta: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the difference", weight="imitation is what keeps the policy where it was")

    def optimum(self) -> Declared:
        """None."""
        return NoneKnown("it imitates chosen answers and prefers them, which lead to different policies")

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        logp = batch.sum_by_sequence(stats.logp)
        margin = batch.chosen(logp) - batch.rejected(logp)
        metrics = {"margin": margin, "accuracy": preferred(margin)}
        return self.loss(
            batch, preference=-logsigmoid(self.beta * margin), nll=-self.weight * stats.logp, metrics=metrics
        )
