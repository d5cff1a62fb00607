"""Optima in closed form.

Axes: P prompts, Y answers to each prompt.
"""

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.optimum.tables import Tables, kl


class Optimum(abc.ABC):
    """A policy in closed form; subclass it for a method that ends elsewhere than those below."""

    tolerance: ClassVar[float] = 1e-6
    """Largest KL from this optimum, nats, at which a method counts as having reached it."""

    @property
    def scale(self) -> float:
        """Spread of rewards at which the optimum is clearly not the reference, reward units."""
        return 1.0

    @abc.abstractmethod
    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """`(P, Y)` nats: log-probability of each answer at the optimum."""


@dataclass(frozen=True)
class Tilted(Optimum):
    """pi* ~ pi_ref exp(r / beta): the maximum of E[r] - beta KL(pi || pi_ref).

    Args:
        beta: price of leaving the reference, reward units per nat.
        flips: share of the labels that are wrong in the data from which it is reached all the same.
        penalty: reward units off for an answer that did not finish.
        ties: Davidson's nu of the raters in the data from which it is reached; at 0 they call no pair a tie.
        ranked: answers of each list in that data; 2 for pairs.

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 4.
    """

    beta: float
    flips: float = 0.0
    penalty: float = 0.0
    ties: float = 0.0
    ranked: int = 2

    @property
    def scale(self) -> float:
        """Twice the price of a nat."""
        return 2 * self.beta

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """The tilted reference."""
        return (tables.reference + tables.penalised(self.penalty).reward / self.beta).log_softmax(-1)

    def regret(self, policy: Float[Tensor, "P Y"], tables: Tables) -> Float[Tensor, "P"]:
        """`(P,)` reward units that a policy loses in E[r] - beta KL against the optimum: beta KL(policy || pi*)."""
        return self.beta * kl(policy, self.policy(tables))


@dataclass(frozen=True)
class PreferenceTilted(Optimum):
    """pi ~ pi_ref exp(E[p(y > y')] / tau), with y' drawn from the reference: IPO's optimum.

    Args:
        tau: price of leaving the reference.

    Source: Azar et al. 2023, arXiv:2310.12036, section 4.
    """

    tolerance: ClassVar[float] = 1e-8
    tau: float

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """The reference, tilted by how often an answer is preferred."""
        often = (tables.preference * tables.reference.exp()[:, None, :]).sum(-1)
        return (tables.reference + often / self.tau).log_softmax(-1)


@dataclass(frozen=True)
class LengthTilted(Optimum):
    """pi = q exp(length * (r / beta + c)), with c per prompt so that it adds up to 1: a margin per token.

    Args:
        beta: scale of the difference of log-likelihoods (or log-ratios) per token.
        from_reference: q is the reference; otherwise it is 1 for every answer.
    """

    beta: float
    from_reference: bool

    @property
    def scale(self) -> float:
        """That of the difference."""
        return self.beta

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """By bisection on c, which the total probability rises with."""
        base = tables.reference if self.from_reference else torch.zeros_like(tables.reference)
        low, high = base.new_full((len(base), 1), -1000.0), base.new_full((len(base), 1), 1000.0)
        for _ in range(200):
            middle = (low + high) / 2
            total = (base + tables.length * (tables.reward / self.beta + middle)).logsumexp(-1, keepdim=True)
            low, high = torch.where(total < 0, middle, low), torch.where(total < 0, high, middle)
        return base + tables.length * (tables.reward / self.beta + low)


@dataclass(frozen=True)
class Imitated(Optimum):
    """The distribution of the given answers: the optimum of a negative log-likelihood."""

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """The data's."""
        return tables.data


@dataclass(frozen=True)
class Chosen(Optimum):
    """pi = pi_ref 2 E[p(y > y')], with y' drawn from the reference: the chosen answers of pairs, imitated."""

    @property
    def scale(self) -> float:
        """Twice one reward unit: at one, choices are too even to move it far from the reference."""
        return 2.0

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """How often an answer is drawn, times how often it is then preferred."""
        often = (tables.preference * tables.reference.exp()[:, None, :]).sum(-1)
        return (tables.reference + often.log()).log_softmax(-1)


@dataclass(frozen=True)
class Taught(Optimum):
    """The teacher: the optimum of distillation."""

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """The teacher's."""
        return tables.teacher
