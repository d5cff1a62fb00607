"""The head of a reward model or a critic: one number per attribute, out of the body's last hidden state.

Axes: T tokens, S sequences, d width, k attributes.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.batch import Batch
from alignlab.errors import ConfigError

REWARD: Final = ("reward",)
"""Name of the only attribute of a model of preferences, and of a critic."""
STATISTICS: Final = frozenset({"value", "score", "scores"})
"""Statistics that are read off the head."""


class ScoreHead(nn.Linear):
    """`d -> k` without bias: row j is the head of attribute j; in reward units.

    Args:
        weight: `(k, d)`; copied.
        attributes: name of each row.
    """

    def __init__(self, weight: Float[Tensor, "k d"], attributes: Sequence[str] = REWARD) -> None:
        if len(attributes) != len(weight) or len(set(attributes)) != len(attributes):
            raise ValueError(f"ScoreHead: {len(weight)} rows need as many different names, got {list(attributes)}")
        super().__init__(weight.shape[1], len(weight), bias=False, device=weight.device, dtype=weight.dtype)
        self.attributes = tuple(attributes)
        with torch.no_grad():
            self.weight.copy_(weight)

    @classmethod
    def random(cls, like: Tensor, attributes: Sequence[str], seed: int) -> "ScoreHead":
        """A head of small random weights (variance 1 / (d + 1), as arXiv:1909.08593 does).

        Args:
            like: a tensor `(..., d)` of the model, for width, device and type.
            attributes: name of each row.
            seed: of the weights.
        """
        width, generator = like.shape[-1], torch.Generator().manual_seed(seed)
        weight = torch.randn(len(attributes), width, generator=generator) / math.sqrt(width + 1)
        return cls(weight.to(like.device, like.dtype), attributes)

    def statistics(self, hidden: Float[Tensor, "T d"], batch: Batch, needs: frozenset[str]) -> dict[str, Tensor]:
        """Those of `value`, `score` and `scores` that `needs` names; see `TokenStats`.

        Raises:
            ConfigError: one number is asked for, and there are several attributes.
        """
        if len(self.attributes) > 1 and (single := sorted(needs & {"value", "score"})):
            raise ConfigError(
                f"the model has a head for each of {', '.join(self.attributes)}, and {' and '.join(single)} is of one; "
                f"take a reward model of one attribute"
            )
        with torch.autocast(hidden.device.type, enabled=False):  # a reward has more digits than bfloat16
            found = self(hidden.to(self.weight.dtype))
        found = found.to(torch.promote_types(hidden.dtype, torch.float32))
        values = {}
        if "value" in needs:
            scalar = found[:, 0]
            before = torch.cat([scalar.new_zeros(1), scalar[:-1]]) if batch.num_tokens else scalar
            values["value"] = before * (batch.position > 0)
        if "score" in needs:
            values["score"] = found[batch.last_tokens(), 0]
        if "scores" in needs:
            values["scores"] = found[batch.last_tokens()]
        return values
