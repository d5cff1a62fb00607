"""The exact numbers of an enumerable world: what closed forms are made of.

Axes: P prompts, Y answers to each prompt.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Tables:
    """Every answer that can be given, with its exact probabilities and reward.

    Args:
        answers: token ids of each answer, the stop token included where the answer has one.
        finished: `(Y,)` 1 where the answer ends with its stop token, 0 where it is cut at the longest length.
        reference: `(P, Y)` nats: log-probability of each answer under the reference.
        reward: `(P, Y)` reward units.
        preference: `(P, Y, Y)` true probability that the first answer is preferred to the second.
        teacher: `(P, Y)` nats: log-probability under the teacher.
        data: `(P, Y)` nats: log-probability under the distribution that given answers are drawn from.
        group_size: answers of each group in online methods that compare the answers to one prompt.
    """

    answers: tuple[tuple[int, ...], ...]
    finished: Float[Tensor, "Y"]
    reference: Float[Tensor, "P Y"]
    reward: Float[Tensor, "P Y"]
    preference: Float[Tensor, "P Y Y"]
    teacher: Float[Tensor, "P Y"]
    data: Float[Tensor, "P Y"]
    group_size: int = 2

    @property
    def length(self) -> Float[Tensor, "Y"]:
        """`(Y,)` tokens of each answer."""
        return torch.tensor([float(len(a)) for a in self.answers], dtype=self.reward.dtype)

    def penalised(self, penalty: float) -> "Tables":
        """The same with `penalty` reward units off every answer that did not finish."""
        return replace(self, reward=self.reward - penalty * (1 - self.finished))


def kl(p: Float[Tensor, "P Y"], q: Float[Tensor, "P Y"]) -> Float[Tensor, "P"]:
    """`(P,)` nats: KL(p || q) of each prompt's distribution, from log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)
