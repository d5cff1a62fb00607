"""Objectives made of others: `Wrapped` varies one, `OnPolicy` saves a pass, `WeightedSum` adds several up."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from alignlab.batch import Batch, RolloutBatch
from alignlab.objective.contract import Loss, Objective
from alignlab.optimum import Declared, NoneKnown, PolicyGradient, added
from alignlab.stats import Mean, TokenStats

B = TypeVar("B", bound=Batch, contravariant=True)


class Wrapped(Objective[B]):
    """Forwards everything to another objective; subclass it and override what differs.

    Args:
        objective: the one to forward to.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, objective: Objective[B]) -> None:
        self.objective = objective
        self.needs = objective.needs  # type: ignore[misc]  # of this object, not of its class
        self.reads = objective.reads  # type: ignore[misc]
        self.per = objective.per  # type: ignore[misc]
        self.lists = objective.lists  # type: ignore[misc]

    @property
    def takes(self) -> type[Batch] | None:
        """As the wrapped objective."""
        return self.objective.takes

    @property
    def has_step_means(self) -> bool:
        """As the wrapped objective, unless a subclass takes means of its own."""
        return self.objective.has_step_means or type(self).step_means is not Wrapped.step_means

    def step_means(self, stats: TokenStats, batch: B) -> Mapping[str, Mean]:
        """As the wrapped objective."""
        return self.objective.step_means(stats, batch)

    def optimum(self) -> Declared:
        """None: a variation may end elsewhere. Override it where it is known."""
        return NoneKnown(f"it varies {type(self.objective).__name__}, and declares none of its own; override optimum()")

    def __call__(self, stats: TokenStats, batch: B) -> Loss:
        return self.objective(stats, batch)


class OnPolicy(Wrapped[RolloutBatch]):
    """An objective on answers that the policy has sampled and that it is stepped on once.

    The policy that sampled is then the one that is trained, so its `old_logp` is `logp` without gradient: a ratio of
    exactly 1, and no forward pass of its own.
    """

    def __init__(self, objective: Objective[RolloutBatch]) -> None:
        super().__init__(objective)
        self.needs = objective.needs | {"logp"}  # type: ignore[misc]
        self.reads = objective.reads - {"old_logp"}  # type: ignore[misc]

    def step_means(self, stats: TokenStats, batch: RolloutBatch) -> Mapping[str, Mean]:
        """As the wrapped objective."""
        return self.objective.step_means(stats, batch.with_tokens(old_logp=stats.logp.detach()))

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.objective(stats, batch.with_tokens(old_logp=stats.logp.detach()))


class WeightedSum(Objective[B]):
    """Several objectives on the same batch, each times a weight; every term is divided by its own units.

    Terms and metrics are named `NAME/TERM`, where NAME is the key of their objective.

    Args:
        objectives: by a name of your choice.
        weights: of each; 1 where none is given.

    Raises:
        ValueError: no objective is given, a weight names none of them, or their batches differ.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, objectives: Mapping[str, Objective[Any]], weights: Mapping[str, float] | None = None) -> None:
        self.objectives = dict(objectives)
        self.weights = dict(weights or {})
        if not objectives:
            raise ValueError("WeightedSum: objectives is empty; name at least one")
        if unknown := sorted(self.weights.keys() - self.objectives.keys()):
            raise ValueError(f"WeightedSum: weights name {', '.join(unknown)}; objectives are {', '.join(objectives)}")
        parts = self.objectives.items()
        self.needs = frozenset().union(*(o.needs for o in objectives.values()))  # type: ignore[misc]
        self.reads = frozenset().union(*(o.reads for o in objectives.values()))  # type: ignore[misc]
        self.per = {f"{k}/{term}": w for k, o in parts for term, w in o.per.items()}  # type: ignore[misc]
        self.lists = all(o.lists for o in objectives.values())  # type: ignore[misc]
        self._takes = _narrowest([o.takes for o in objectives.values()])

    @property
    def takes(self) -> type[Batch] | None:
        """The narrowest of their batches."""
        return self._takes

    @property
    def has_step_means(self) -> bool:
        """Whether any of them asks for some."""
        return any(o.has_step_means for o in self.objectives.values())

    def step_means(self, stats: TokenStats, batch: B) -> Mapping[str, Mean]:
        """Those of all objectives."""
        parts = self.objectives.items()
        return {f"{k}/{name}": mean for k, o in parts for name, mean in o.step_means(stats, batch).items()}

    def optimum(self) -> Declared:
        """That of the sum where all are policy gradients or KL terms; else where all of them end, if they agree."""
        weights = [self.weights.get(key, 1.0) for key in self.objectives]
        ends = [objective.optimum() for objective in self.objectives.values()]
        gradients = [(w, end) for w, end in zip(weights, ends, strict=True) if isinstance(end, PolicyGradient)]
        if len(gradients) == len(ends):
            return added(gradients)
        if unknown := next((end for end in ends if isinstance(end, NoneKnown)), None):
            return unknown
        if all(end == ends[0] for end in ends) and all(w > 0 for w in weights):
            return ends[0]
        return NoneKnown("a sum of objectives that end at different places")

    def __call__(self, stats: TokenStats, batch: B) -> Loss:
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Mean] = {}
        for key, objective in self.objectives.items():
            loss = objective(stats, _with_own_constants(batch, key))
            terms |= {f"{key}/{name}": self.weights.get(key, 1.0) * term for name, term in loss.terms.items()}
            metrics |= {f"{key}/{name}": metric for name, metric in loss.metrics.items()}
        return Loss(terms, metrics)


def _with_own_constants(batch: Any, key: str) -> Any:
    own = {k.removeprefix(f"{key}/"): v for k, v in batch.step.items() if k.startswith(f"{key}/")}
    return batch.with_constants(own)


def _narrowest(kinds: list[type[Batch] | None]) -> type[Batch] | None:
    known = [k for k in kinds if k is not None]
    narrowest = max(known, key=lambda k: len(k.__mro__), default=None)
    if narrowest is not None and not all(issubclass(narrowest, k) for k in known):
        raise ValueError(
            f"WeightedSum: its objectives take {', '.join(k.__name__ for k in known)}; they must share one"
        )
    return narrowest
