"""Declarations of objectives and advantages about where they end."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from alignlab.optimum.closed import Optimum, Tilted
from alignlab.optimum.stationary import Estimator, Stationary


@dataclass(frozen=True)
class RewardItself:
    """A reward model's optimum: scores are the raters' utility, up to a constant per prompt.

    Args:
        constant: whether that constant is free.
        ties: how readily the raters call a tie in the data from which it is reached (Davidson's nu); 0 never.
    """

    tolerance: ClassVar[float] = 1e-4
    """Largest difference of a score from the utility, reward units."""
    constant: bool = True
    ties: float = 0.0


@dataclass(frozen=True)
class PolicyGradient:
    """An objective whose gradient is that of `u(y) * (A * logp - beta * KL)`, on the policy that sampled.

    Where it ends also depends on the advantage A, which declares a `Credit`.

    Args:
        mean_over_answer: u is 1 / length (tokens are averaged within an answer first); otherwise 1 for every token.
        beta: weight of the KL term in the loss, per nat; 0 has none.
        estimator: of that KL, per token; see `Stationary`.
    """

    mean_over_answer: bool = False
    beta: float = 0.0
    estimator: Estimator = "k3"


@dataclass(frozen=True)
class Credit:
    """Credit that an advantage gives to an answer, in expectation over the other answers of its group.

    Args:
        kind: "reward" is the reward less a baseline that does not depend on the answer; "centred" less the group's
            mean, the answer included; "standardised" is that over the group's standard deviation.
        beta: price of the KL that is paid in the reward, token by token, reward units per nat.
        penalty: reward units off for an answer that did not finish.
        eps: added to the standard deviation.
    """

    kind: Literal["reward", "centred", "standardised"] = "reward"
    beta: float = 0.0
    penalty: float = 0.0
    eps: float = 0.0


@dataclass(frozen=True)
class NoneKnown:
    """No optimum is known in closed form.

    Args:
        reason: a sentence for the table of `alignlab verify`.
    """

    reason: str


Declared: TypeAlias = Optimum | RewardItself | PolicyGradient | NoneKnown
"""The declaration of an objective."""


def combined(gradient: PolicyGradient, credit: Credit | NoneKnown) -> Optimum | NoneKnown:
    """Where a policy gradient ends with an advantage.

    With the KL in the reward alone, every answer is paid the same at pi*, so that every advantage is 0 there, however
    it is scaled and however tokens are weighted.
    """
    if isinstance(credit, NoneKnown):
        return credit
    if credit.beta and gradient.beta:
        return NoneKnown("the KL is paid twice, in the reward and in the loss")
    if credit.beta:
        return Tilted(credit.beta, penalty=credit.penalty)
    if not gradient.beta:
        return NoneKnown("nothing keeps it close to the reference, so that it ends at the best answer alone")
    estimator = gradient.estimator
    return Stationary(gradient.beta, estimator, gradient.mean_over_answer, credit.kind, credit.penalty, credit.eps)
