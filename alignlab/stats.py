"""Per-token statistics of a policy, and means that can be added up over micro-batches and processes.

Axes: T tokens, S sequences, k attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TokenStats:
    """Statistics of a policy on the tokens of a batch; only those that were asked for.

    `logp[t]` scores token t given those before it in its own sequence. Everything is 0 outside the response mask
    (those tokens never reach the head), except `value`, which is given at every token.

    Args:
        values: `logp`, `lse`, `entropy`, `kl_to_teacher`, `kl_from_teacher` (nats) and `value` (reward units) are
            `(T,)`; `score` (reward units) is `(S,)`, `scores` (reward units) `(S, k)`.
    """

    values: Mapping[str, Tensor]

    def _get(self, name: str) -> Tensor:
        if name not in self.values:
            have = ", ".join(sorted(self.values)) or "nothing"
            raise KeyError(f"TokenStats has {have}, but not {name!r}; name it in the objective's `needs`")
        return self.values[name]

    @property
    def logp(self) -> Float[Tensor, "T"]:
        """`(T,)` nats."""
        return self._get("logp")

    @property
    def lse(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: log-sum-exp of the logits that predict the token."""
        return self._get("lse")

    @property
    def entropy(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: entropy of the distribution that predicts the token."""
        return self._get("entropy")

    @property
    def kl_to_teacher(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: KL(policy ‖ teacher) of the next-token distributions, over the whole vocabulary (reverse KL)."""
        return self._get("kl_to_teacher")

    @property
    def kl_from_teacher(self) -> Float[Tensor, "T"]:
        """`(T,)` nats: KL(teacher ‖ policy) of the next-token distributions, over the whole vocabulary (forward KL)."""
        return self._get("kl_from_teacher")

    @property
    def value(self) -> Float[Tensor, "T"]:
        """`(T,)` reward units: forecast *before* token t is emitted, from the tokens before it; 0 at position 0."""
        return self._get("value")

    @property
    def score(self) -> Float[Tensor, "S"]:
        """`(S,)` reward units: of the whole sequence, read at its last token."""
        return self._get("score")

    @property
    def scores(self) -> Float[Tensor, "S k"]:
        """`(S, k)` reward units: of the whole sequence by each attribute of the model, read at its last token."""
        return self._get("scores")

    def __or__(self, other: "TokenStats") -> "TokenStats":
        return TokenStats({**self.values, **other.values})


@dataclass(frozen=True)
class Mean:
    """A mean in parts: a sum and the weight that it runs over. Adds up exactly over micro-batches and processes."""

    total: Tensor
    weight: Tensor

    def __add__(self, other: Self) -> "Mean":
        return Mean(self.total + other.total, self.weight + other.weight)

    def value(self) -> Tensor:
        """Sum over weight; 0 where nothing was counted."""
        return self.total / torch.where(self.weight == 0, torch.ones_like(self.weight), self.weight)

    @classmethod
    def of(cls, x: Tensor, weight: Tensor) -> "Mean":
        """Weighted mean of `x`, without gradient; entries of weight 0 cannot leak in, not even NaN."""
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        w = weight.detach().to(x.dtype)
        return cls(torch.where(w != 0, x * w, torch.zeros_like(x)).sum(), w.sum())
