"""Objective: tensors in, loss out. It holds only what distinguishes DPO, SFT and PPO.

An objective owns no weights, reads no files, draws no random numbers and sees no model. Packing, sharding, the fused
kernel and the memory budget therefore reach every objective for free, and each can be tested on three tokens. It
returns *values*: one per token, sequence or unit. What they are a mean over is stated once, in `per`; the core weighs,
sums and divides, by the number of elements of the whole optimizer step.

Left out on purpose: a `loss_type` switch and a base class with options. One class per objective, abstract or final; to
vary one, wrap it (`Wrapped`), and to add some up, use `WeightedSum`.

Axes: T tokens, S sequences, W units.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import torch
from torch import Tensor

from alignlab.batch import Batch
from alignlab.objective.elements import DEFAULT_PER, Weights, sequences, tokens, units
from alignlab.optimum import Declared, NoneKnown
from alignlab.stats import Mean, TokenStats

B = TypeVar("B", bound=Batch, contravariant=True)


@dataclass(frozen=True)
class Loss:
    """The loss of one micro-batch, made by `Objective.loss`.

    Args:
        terms: each the weighted SUM over its elements, differentiable. The training step divides each by the weight of
            all its elements in the whole optimizer step.
        metrics: each a mean of its own, without gradient.
    """

    terms: Mapping[str, Tensor]
    metrics: Mapping[str, Mean] = field(default_factory=dict)

    def mean(self, units: Mapping[str, Tensor]) -> Tensor:
        """The scalar that is differentiated: every term over its units, added up."""
        parts = [t / torch.where(units[k] == 0, torch.ones_like(units[k]), units[k]) for k, t in self.terms.items()]
        return torch.stack(parts).sum()


class Objective(abc.ABC, Generic[B]):
    """Turns token statistics and a batch into a loss.

    A subclass states the batch that it takes (`class DPO(Objective[PreferenceBatch])`), what it needs and reads, and
    what each of its terms is a mean over; its call returns `self.loss(batch, NAME=values, ...)`.
    """

    VERSION: ClassVar[str]
    """Part of a stage's fingerprint: raise it when the same arguments begin to mean another loss."""
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    """Statistics of the policy: `logp`, `lse`, `entropy`, `value`, `score`, `scores`, `kl_to_teacher`,
    `kl_from_teacher`."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """Extras of the batch: `reference_logp`, `old_logp`, `advantage`, `margin`, `mismatched`, ..."""
    lists: ClassVar[bool] = False
    """Whether its `PreferenceBatch` may hold lists of more than two answers; others take pairs."""
    per: ClassVar[Mapping[str, Weights]]
    """Name of each term and the weights of its elements; by default `{"loss": ...}` by the type of batch."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if not hasattr(cls, "per"):
            taken = batch_type(cls)
            if taken is not None:
                cls.per = {"loss": next(w for kind, w in DEFAULT_PER.items() if issubclass(taken, kind))}

    @property
    def takes(self) -> type[Batch] | None:
        """The batch that it is written for; None where its class does not state one."""
        return batch_type(type(self))

    def units(self, batch: B) -> dict[str, Tensor]:
        """Weight of all elements of each term: from masks and weights alone, before any forward pass."""
        return {name: weights(batch).sum() for name, weights in self.per.items()}

    def step_means(self, stats: TokenStats, batch: B) -> Mapping[str, Mean]:
        """Means over the whole optimizer step that the loss needs as constants (KTO's baseline); none by default.

        They are taken without gradient before anything is differentiated, over all micro-batches and processes, and
        delivered as `batch.step[NAME]`, a scalar.
        """
        return {}

    @property
    def has_step_means(self) -> bool:
        """Whether `step_means` asks for anything: if not, no pass over the step is made for it."""
        return type(self).step_means is not Objective.step_means

    def optimum(self) -> Declared:
        """Where it ends if it is trained to the end, for `alignlab verify`; see `alignlab.optimum`."""
        return NoneKnown("none is declared; override optimum()")

    @abc.abstractmethod
    def __call__(self, stats: TokenStats, batch: B) -> Loss:
        """The loss of one micro-batch: `self.loss(batch, NAME=values, metrics={...})`."""

    def loss(self, batch: B, *, metrics: Mapping[str, Tensor | Mean] | None = None, **values: Tensor) -> Loss:
        """The loss of some values.

        Args:
            batch: that they belong to.
            metrics: also one value per token, sequence or unit, by name, averaged over those; or a `Mean`.
            values: one tensor for each term of `per`, with one value for each of its elements, coefficient included.

        Raises:
            ValueError: a term is missing or unknown, or a shape is not that of its elements.
        """
        if values.keys() != self.per.keys():
            raise ValueError(
                f"{self._name}: loss() got the terms {sorted(values)}, and `per` states {sorted(self.per)}"
            )
        weights = {name: self.per[name](batch) for name in values}
        for name, value in values.items():
            if value.shape != weights[name].shape:
                raise ValueError(
                    f"{self._name}: term {name!r} must be one value per element, {tuple(weights[name].shape)}, got "
                    f"{tuple(value.shape)}; return values, not sums or means: the training step divides"
                )
        terms = {name: _weighted(value, weights[name]).sum() for name, value in values.items()}
        return Loss(terms, {name: self._metric(name, x, batch) for name, x in (metrics or {}).items()})

    def _metric(self, name: str, x: Tensor | Mean, batch: B) -> Mean:
        if isinstance(x, Mean):
            return x
        # A batch may have as many tokens as sequences; then the elements of the loss decide.
        known = [*(w(batch) for w in self.per.values()), tokens(batch), sequences(batch), units(batch)]
        for weight in known:
            if weight.shape == x.shape:
                return Mean.of(x, weight)
        raise ValueError(
            f"{self._name}: metric {name!r} must be one value per token, sequence or unit, got shape {tuple(x.shape)}; "
            f"pass a Mean for anything else"
        )

    @property
    def _name(self) -> str:
        return type(self).__name__


def _weighted(x: Tensor, weight: Tensor) -> Tensor:
    """`x * weight`; an entry of weight 0 cannot leak in, not even infinity, which oracles give to impossible events."""
    return torch.where(weight != 0, x, torch.zeros_like(x)) * weight.to(x.dtype)


def batch_type(owner: type[Any], generic: type[Any] = Objective) -> type[Batch] | None:
    """The batch that a class says it takes (`class DPO(Objective[PreferenceBatch])`); None where it states none.

    Args:
        owner: an objective's class, or another that is generic over its batch.
        generic: which of its bases is.
    """
    for cls in owner.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, generic):
                found = get_args(base)[0]
                if isinstance(found, type) and issubclass(found, Batch):
                    return found
    return None
