"""Losses that train a policy on preference pairs directly, kept close to a frozen reference."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import logsigmoid

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, log_ratio, pair_metrics
from alignlab.optimum import Declared, PreferenceTilted, Tilted


@dataclass(frozen=True)
class DPO(Objective[PreferenceBatch]):
    """Prefer the chosen answer to the rejected one by more than the reference does.

    Mean over pairs of `-log sigmoid(beta * margin)`, where the margin, in nats, is the policy's preference for the
    chosen answer minus the reference's, each summed over the response tokens.

    Args:
        beta: price of leaving the reference, per nat; > 0. Small values let the policy go far.

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin")

    def optimum(self) -> Declared:
        """pi_ref tilted by the raters' utility over beta."""
        return Tilted(self.beta)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        return self.loss(batch, loss=-logsigmoid(self.beta * metrics["margin"]), metrics=metrics)


@dataclass(frozen=True)
class IPO(Objective[PreferenceBatch]):
    """Prefer the chosen answer by a fixed amount: mean over pairs of `(margin - 1 / (2 tau))^2`.

    The margin is DPO's, in nats, summed over the response tokens (not averaged: some frameworks do). Unlike DPO it
    has a finite optimum on preferences that are never contradicted.

    Args:
        tau: price of leaving the reference; > 0.

    Source: Azar et al. 2023, arXiv:2310.12036, eq. 17.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    tau: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, tau="the wanted margin is 1 / (2 tau)")

    def optimum(self) -> Declared:
        """pi_ref tilted by how often an answer is preferred."""
        return PreferenceTilted(self.tau)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        return self.loss(batch, loss=(metrics["margin"] - 1 / (2 * self.tau)).square(), metrics=metrics)
