"""DPO on judgements of more than two outcomes: ties, and rankings of several answers.

Axes: S sequences, W units.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, davidson_loss, log_ratio, pair_metrics, preferred
from alignlab.optimum import Declared, Tilted


@dataclass(frozen=True)
class DavidsonDPO(Objective[PreferenceBatch]):
    """DPO with ties (DPO-D): Davidson's model of three outcomes in place of Bradley and Terry's of two.

    With `d = beta * margin`, win, loss and tie have the odds `exp(d / 2) : exp(-d / 2) : 2 nu`; the loss is the mean
    over pairs of `-log` of the probability of what was found. A tie pulls the margin to 0.

    Args:
        beta: price of leaving the reference, per nat; > 0.
        nu: how readily raters call a tie; > 0. Equal answers tie with probability `nu / (1 + nu)`.

    Source: Chen et al. 2024, arXiv:2409.17431 (DPO-D); the model is that of Davidson 1970, JASA 65(329).
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp", "tie"})
    beta: float = 0.1
    nu: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin", nu="at 0 no pair could be a tie")

    def optimum(self) -> Declared:
        """DPO's, from raters who call ties as Davidson has it."""
        return Tilted(self.beta, ties=self.nu)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        tie = batch.of_unit("tie").to(stats.logp.dtype)
        return self.loss(batch, loss=davidson_loss(self.beta * metrics["margin"], tie, self.nu), metrics=metrics)


@dataclass(frozen=True)
class PlackettLuce(Objective[PreferenceBatch]):
    """DPO on rankings: in turn, the best answer is chosen from those that are left. On pairs it is DPO.

    Mean over lists of `-sum_k log(exp(z_k) / sum_{j >= k} exp(z_j))`, where `z = beta * log_ratio` of the k-th best
    answer. Lists are units of a `PreferenceBatch`, the best answer first, each of any length.

    Args:
        beta: price of leaving the reference, per nat; > 0.

    Source: Rafailov et al. 2023, arXiv:2305.18290, appendix A.3, eq. 20.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    lists: ClassVar[bool] = True
    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the log-ratios")

    def optimum(self) -> Declared:
        """DPO's, from raters who rank as Plackett and Luce have it; checked on lists of three."""
        return Tilted(self.beta, ranked=3)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        gain, rank = log_ratio(stats, batch), batch.rank()
        counts = torch.bincount(batch.unit, minlength=batch.num_units)
        margin = gain[rank == 0] - gain[rank == counts[batch.unit] - 1]
        metrics = {"margin": margin, "accuracy": preferred(margin)}
        return self.loss(batch, loss=_ranking_loss(self.beta * gain, batch), metrics=metrics)


def _ranking_loss(score: Float[Tensor, "S"], batch: PreferenceBatch) -> Float[Tensor, "W"]:
    """`-log` probability of each list's order. Lists shorter than the longest end in places that cost nothing."""
    rank = batch.rank()
    longest = int(rank.max()) + 1 if len(rank) else 1
    at, empty = (batch.unit, rank), score.new_zeros(batch.num_units, longest)
    placed, there = empty.index_put(at, score), empty.bool().index_put(at, torch.ones_like(rank, dtype=torch.bool))
    square = torch.ones(longest, longest, dtype=torch.bool, device=score.device)
    left = (there[:, None, :] & square.triu()) | (square.triu() & square.tril())  # a place is always left to itself
    return (placed[:, None, :].masked_fill(~left, -torch.inf).logsumexp(-1) - placed).sum(-1)
