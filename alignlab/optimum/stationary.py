"""Where a policy gradient with a KL term in its loss has nothing left to learn.

On the policy that sampled, the gradient at a state s with respect to the logits is `pi(a) (G(a) - sum_b pi(b) G(b))`,
where G(a) is the expectation, over what follows a, of `u(y) * (A(y) - beta * g(log pi(a) / pi_ref(a)))`; u weights the
tokens of an answer, A is its advantage and g the derivative of the KL estimator. It is 0 where G is the same for all
a, which gives pi(a) for each state from the last to the first; A and the weights depend on pi, so that this is repeated
until nothing changes.

Axes: P prompts, Y answers to each prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.optimum.closed import Optimum
from alignlab.optimum.tables import Tables

Estimator = Literal["k2", "k3"]
"""Of a token's KL, from `d = logp - reference_logp`: k2 is d^2 / 2, k3 is exp(-d) - 1 + d.

Named by its gradient on the policy that sampled, d for k2 and 1 - exp(-d) for k3. That of k3 times the ratio to that
policy is k2's: `k3 + 1 - exp(-d) = d`.
"""


@dataclass(frozen=True)
class Stationary(Optimum):
    """The fixed point of a policy gradient with a KL term in its loss.

    For answers of one token, k3 and the plain reward it is `beta pi_ref / (lambda - r)`, with lambda per prompt: k3 as
    a loss has the gradient of KL(pi_ref || pi), not of KL(pi || pi_ref).

    Args:
        beta: weight of the KL term, reward units per nat.
        estimator: of that KL.
        mean_over_answer: tokens are averaged within an answer first.
        credit: see `Credit.kind`.
        penalty: reward units off for an answer that did not finish.
        eps: added to a group's standard deviation.
    """

    beta: float
    estimator: Estimator
    mean_over_answer: bool
    credit: str
    penalty: float = 0.0
    eps: float = 0.0

    @property
    def scale(self) -> float:
        """Twice the price of a nat, where the advantage keeps reward units."""
        return 1.0 if self.credit == "standardised" else 2 * self.beta

    def policy(self, tables: Tables) -> Float[Tensor, "P Y"]:
        """By repeated backward induction."""
        tables = tables.penalised(self.penalty)
        policy = tables.reference
        for _ in range(2000):
            new = self._step(policy, tables)
            if float((new - policy).abs().max()) < 1e-13:
                return new
            policy = (0.5 * policy.exp() + 0.5 * new.exp()).log()
        return policy

    def _step(self, policy: Float[Tensor, "P Y"], tables: Tables) -> Float[Tensor, "P Y"]:
        weight = 1 / tables.length if self.mean_over_answer else torch.ones_like(tables.length)
        credited = weight * self._advantage(policy, tables)
        return induced(tables, credited, weight.expand_as(credited), self._at_state)

    def _advantage(self, policy: Float[Tensor, "P Y"], tables: Tables) -> Float[Tensor, "P Y"]:
        """`(P, Y)` the advantage of each answer, the other answers of its group being drawn from the policy."""
        reward, chance = tables.reward, policy.exp()
        if self.credit == "standardised":
            assert tables.group_size == 2, "the expected advantage is written out for groups of two"
            half = (reward[:, :, None] - reward[:, None, :]) / 2
            return (chance[:, None, :] * half / (half.abs() + self.eps).clamp_min(1e-300)).sum(-1)
        centred = reward - (chance * reward).sum(-1, keepdim=True)
        return centred * (1 - 1 / tables.group_size) if self.credit == "centred" else centred

    def _at_state(self, reference: Tensor, gained: Tensor, weight: Tensor) -> Tensor:
        """Log-probabilities at a state of which `gained - beta * weight * g` is the same for every token."""
        price = self.beta * weight
        if self.estimator == "k2":
            return _normalised(lambda c: reference + (gained - c) / price, gained.amin(-1), gained.amax(-1))
        top = (gained - price).amax(-1)
        return _normalised(
            lambda c: reference + (price / (c - gained + price).clamp_min(1e-300)).log(), top, top + 2 * price.sum(-1)
        )


def _normalised(logp_at: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The log-probabilities that add up to 1, by bisection on what their total falls with."""
    low, high = low[..., None], high[..., None]
    for _ in range(200):
        middle = (low + high) / 2
        total = logp_at(middle).logsumexp(-1, keepdim=True)
        low, high = torch.where(total > 0, middle, low), torch.where(total > 0, high, middle)
    return logp_at(high).log_softmax(-1)


# ---- the tree of answers ---------------------------------------------------------------------------------------------
@lru_cache
def _branches(answers: tuple[tuple[int, ...], ...]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Every beginning of an answer that tokens follow, the longest first, with those tokens."""
    starts = {a[:i] for a in answers for i in range(len(a))}
    follows = {s: sorted({a[len(s)] for a in answers if a[: len(s)] == s and len(a) > len(s)}) for s in starts}
    return sorted(follows.items(), key=lambda item: (-len(item[0]), item[0]))


def induced(
    tables: Tables,
    credited: Float[Tensor, "P Y"],
    weight: Float[Tensor, "P Y"],
    at_state: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "P Y"]:
    """Choose the distribution at every state from the last to the first.

    Args:
        tables: the answers and the reference.
        credited: of each answer.
        weight: of each answer's tokens.
        at_state: (log reference, expected credit, expected weight) of each next token to its log-probability.

    Returns:
        `(P, Y)` nats: log-probability of each answer.
    """
    number = {answer: y for y, answer in enumerate(tables.answers)}
    gained = {answer: credited[:, y] for answer, y in number.items()}
    weighed = {answer: weight[:, y] for answer, y in number.items()}
    mass = {answer: tables.reference[:, y] for answer, y in number.items()}
    chosen: dict[tuple[int, ...], Tensor] = {}
    for start, words in _branches(tables.answers):
        ends = [(*start, word) for word in words]
        reference = torch.stack([mass[e] for e in ends], -1)
        mass[start] = reference.logsumexp(-1)
        gain, heavy = torch.stack([gained[e] for e in ends], -1), torch.stack([weighed[e] for e in ends], -1)
        logp = at_state(reference - mass[start][:, None], gain, heavy)
        chosen |= {end: logp[:, i] for i, end in enumerate(ends)}
        gained[start], weighed[start] = (logp.exp() * gain).sum(-1), (logp.exp() * heavy).sum(-1)
    whole = [sum((chosen[a[: i + 1]] for i in range(len(a))), torch.zeros_like(credited[:, 0])) for a in tables.answers]
    return torch.stack(whole, -1)
