"""Declarations of objectives and advantages about where they end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from alignlab.optimum.closed import Optimum, Tilted
from alignlab.optimum.stationary import Estimator, Stationary

Average: TypeAlias = Literal["answer_sum", "answer_mean", "token_mean"]
"""Elements that a term is a mean over, and how its tokens enter; see `PolicyGradient`."""


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
    """An objective whose gradient is that of `u(y) * (credit * A * logp - beta * KL)`, on the policy that sampled.

    Where it ends also depends on the advantage A, which declares a `Credit`. Objectives of this kind add up: see
    `added`.

    Args:
        over: what tokens are a mean over. "answer_sum" sums them over an answer and "answer_mean" averages them within
            it (u is 1 / length), both as a mean over answers; "token_mean" is a mean over all tokens.
        beta: weight of the KL term in the loss, per nat; 0 has none.
        estimator: of that KL, per token, by its gradient on the policy that sampled; see `Stationary`.
        credit: weight of the advantage; 0 for a KL term alone.
    """

    over: Average = "answer_sum"
    beta: float = 0.0
    estimator: Estimator = "k3"
    credit: float = 1.0


@dataclass(frozen=True)
class Credit:
    """Credit that an advantage gives to an answer, in expectation over the other answers of its group.

    Args:
        kind: "reward" is the reward less a baseline that does not depend on the answer; "centred" less the group's
            mean, the answer included; "standardised" is that over the group's standard deviation; "to_go" is what a
            token is still to be paid, less the same number for all tokens.
        beta: price of the KL that is paid in the reward, reward units per nat.
        penalty: reward units off for an answer that did not finish.
        eps: added to the standard deviation.
        whitened: divided by the standard deviation over the whole buffer.
    """

    kind: Literal["reward", "centred", "standardised", "to_go"] = "reward"
    beta: float = 0.0
    penalty: float = 0.0
    eps: float = 0.0
    whitened: bool = False


@dataclass(frozen=True)
class NoneKnown:
    """No optimum is known in closed form.

    Args:
        reason: a sentence for the table of `alignlab verify`.
    """

    reason: str


Declared: TypeAlias = Optimum | RewardItself | PolicyGradient | NoneKnown
"""The declaration of an objective."""


def added(parts: Sequence[tuple[float, PolicyGradient]]) -> PolicyGradient | NoneKnown:
    """Sum of policy gradients and KL terms, each times a weight."""
    credit, beta = sum(w * part.credit for w, part in parts), sum(w * part.beta for w, part in parts)
    counted = [part for w, part in parts if w and (part.credit or part.beta)]
    averages = {part.over for part in counted}
    estimators = {part.estimator for part in counted if part.beta}
    if len(averages) > 1:
        return NoneKnown(f"its parts are means over different things: {', '.join(sorted(averages))}")
    if len(estimators) > 1:
        return NoneKnown(f"it holds several estimators of the KL: {', '.join(sorted(estimators))}")
    first = parts[0][1]
    return PolicyGradient(next(iter(averages), first.over), beta, next(iter(estimators), first.estimator), credit)


def combined(gradient: PolicyGradient, credit: Credit | NoneKnown) -> Optimum | NoneKnown:
    """Where a policy gradient ends with an advantage.

    With the KL in the reward alone, every answer is paid the same at pi*, so that every advantage is 0 there, however
    tokens are weighted. A baseline that is the same for all prompts ("to_go") cancels only where the tokens of an
    answer have equal weights.
    """
    if isinstance(credit, NoneKnown):
        return credit
    if not gradient.credit > 0 or gradient.beta < 0:
        return NoneKnown("the advantage or the KL has a weight on the wrong side of 0")
    price = gradient.beta / gradient.credit
    if credit.beta and price:
        return NoneKnown("the KL is paid twice, in the reward and in the loss")
    if credit.kind == "to_go" and gradient.over == "answer_mean":
        return NoneKnown("averaged within answers, a baseline that is the same for all prompts does not cancel")
    if credit.beta and credit.kind == "standardised":
        return NoneKnown(
            "standardised by group, it reaches pi* where eps is 1.0, 0.1 or 0.01; no end was found with 1e-3 and 1e-4"
        )
    if credit.beta:
        return Tilted(credit.beta, penalty=credit.penalty)
    if not price:
        return NoneKnown("nothing keeps it close to the reference, so that it ends at the best answer alone")
    if credit.whitened or credit.kind == "to_go":
        return NoneKnown("whitening divides by a spread of the whole buffer, which the price of a nat depends on")
    mean_over_answer = gradient.over == "answer_mean"
    return Stationary(price, gradient.estimator, mean_over_answer, credit.kind, credit.penalty, credit.eps)
