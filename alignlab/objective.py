"""Objective: tensors in, loss out. What distinguishes DPO from SFT from PPO, and nothing else.

An objective owns no weights, reads no files, draws no random numbers and sees no model. Packing, sharding, the fused
kernel and the memory budget therefore reach every objective for free, and each can be tested on three tokens.

Left out on purpose: a `loss_type` switch and a base class with options. One class an objective, abstract or final; to
vary one, wrap it. Dividing by the number of units is not here either: the stage knows the whole step, this does not.

Axes: T tokens, S sequences, P pairs.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch, PreferenceBatch, TokenBatch
from alignlab.stats import Mean, TokenStats

B = TypeVar("B", bound=Batch, contravariant=True)


@dataclass(frozen=True)
class Loss:
    """What an objective returns for one micro-batch.

    Args:
        terms: each the SUM over its units, coefficient included, differentiable. The stage divides each by the
            units of the whole optimizer step, so names must be those of `Objective.units`.
        metrics: each a mean of its own, without gradient.
    """

    terms: Mapping[str, Tensor]
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    def mean(self, units: Mapping[str, Tensor]) -> Tensor:
        """The scalar that is differentiated: every term over its units, added up."""
        parts = [t / torch.where(units[k] == 0, torch.ones_like(units[k]), units[k]) for k, t in self.terms.items()]
        return torch.stack(parts).sum()

    def __or__(self, other: "Loss") -> "Loss":
        """Both losses' terms and metrics; names must differ."""
        twice = (self.terms.keys() & other.terms.keys()) | (self.metrics.keys() & other.metrics.keys())
        if twice:
            raise ValueError(f"Loss: {sorted(twice)} named twice; give each term and metric a name of its own")
        return Loss({**self.terms, **other.terms}, {**self.metrics, **other.metrics})

    @classmethod
    def over_tokens(
        cls, per_token: Float[Tensor, "T"], batch: Batch, name: str = "loss", **metrics: Float[Tensor, "T"]
    ) -> "Loss":
        """Weighted sum over response tokens; metrics are token means. Units: `token_units`."""
        weight = batch.weight_by_token()
        return cls({name: _weighted(per_token, weight).sum()}, {k: Mean.of(v, weight) for k, v in metrics.items()})

    @classmethod
    def over_sequences(
        cls, per_sequence: Float[Tensor, "S"], batch: TokenBatch, name: str = "loss", **metrics: Tensor
    ) -> "Loss":
        """Weighted sum over sequences; metrics are sequence means. Units: the sum of the weights."""
        weight = batch.weight_by_sequence()
        total = _weighted(per_sequence, weight).sum()
        return cls({name: total}, {k: Mean.of(v, weight) for k, v in metrics.items()})

    @classmethod
    def over_pairs(
        cls, per_pair: Float[Tensor, "P"], batch: PreferenceBatch, name: str = "loss", **metrics: Tensor
    ) -> "Loss":
        """Weighted sum over pairs; metrics are pair means. Units: the sum of the weights."""
        total = _weighted(per_pair, batch.weight).sum()
        return cls({name: total}, {k: Mean.of(v, batch.weight) for k, v in metrics.items()})


class Objective(abc.ABC, Generic[B]):
    """Turns token statistics and a batch into a loss.

    `needs` names what is wanted of the policy (`logp`, `lse`, `entropy`, `value`, `score`, `kl_to_teacher`), `reads`
    what is wanted of the batch (`reference_logp`, `old_logp`, `advantage`, ...). `VERSION` is part of a stage's
    fingerprint: raise it when the same arguments come to mean another loss.
    """

    VERSION: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    reads: ClassVar[frozenset[str]] = frozenset()

    def units(self, batch: B) -> Mapping[str, Tensor]:
        """How many units each term of the loss runs over: from masks and weights alone, before any forward."""
        return {"loss": batch.weight.sum()}

    def statistic(self, now: TokenStats, batch: B) -> Mean | None:
        """A mean over the whole optimizer step that the loss needs as a constant (KTO's KL baseline); none here."""
        return None

    @abc.abstractmethod
    def __call__(self, now: TokenStats, batch: B, context: Tensor | None = None) -> Loss:
        """The loss of one micro-batch; `context` is the mean that `statistic` asked for."""


def _weighted(x: Tensor, weight: Tensor) -> Tensor:
    """`x * weight`; what has weight 0 cannot leak in, not even infinity: an oracle gives it to what cannot happen."""
    return torch.where(weight != 0, x, torch.zeros_like(x)) * weight.to(x.dtype)


def batch_type(owner: type[Any], generic: type[Any] = Objective) -> type[Batch] | None:
    """The batch that a class says it takes (`class DPO(Objective[PreferenceBatch])`); None where it does not say.

    Args:
        owner: an objective's class, or another that is generic over its batch.
        generic: which of its bases is.
    """
    for cls in owner.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is generic:
                found = get_args(base)[0]
                if isinstance(found, type) and issubclass(found, Batch):
                    return found
    return None


def token_units(batch: Batch) -> Tensor:
    """Weighted number of response tokens, for objectives that are a mean over tokens."""
    return batch.weight_by_token().sum()
