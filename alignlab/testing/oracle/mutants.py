"""The usual mistakes, made in a method on purpose: an oracle that does not notice them is worth nothing.

Each takes a method and returns it with one mistake, or None where the method has no place for it.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import torch
from torch import Tensor

from alignlab.batch import Batch
from alignlab.objective import Loss, Objective, WeightedSum, Wrapped
from alignlab.optimum import NoneKnown
from alignlab.stats import Mean, TokenStats
from alignlab.testing.oracle.method import LOGP, Method
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.testing.oracle.solve import gradient, one_thread
from alignlab.testing.oracle.world import STOP

Outcome = Literal["caught", "equivalent", "unseen", "not possible"]
"""`equivalent`: the gradient is that of the method, up to a factor. `unseen`: it is not, and the end is the same."""


@dataclass(frozen=True)
class Mutation:
    """Outcome of one mistake.

    Args:
        mistake: its name.
        outcome: see `Outcome`.
        distance: from the declared optimum to where it ends; infinite where that is nowhere, None where not tried.
    """

    mistake: str
    outcome: Outcome
    distance: float | None = None


# ---- mistakes in what is seen ----------------------------------------------------------------------------------------
def drops_eos(method: Method) -> Method:
    """The stop token does not count as part of the answer."""
    return replace(
        method, alter=lambda batch: replace(batch, response_mask=batch.response_mask & (batch.tokens != STOP))
    )


def no_reference(method: Method) -> Method | None:
    """Log-probabilities of the reference are taken to be 0."""
    return _with_reference(method, lambda batch: torch.zeros_like(batch.token("reference_logp")))


def stale_reference(method: Method) -> Method | None:
    """The reference is another policy than the one that training started from."""
    other = TablePolicy(method.world, method.world.teacher)
    return _with_reference(method, lambda batch: other.token_stats(batch, LOGP).logp.detach())


def _with_reference(method: Method, found: Callable[[Batch], Tensor]) -> Method | None:
    if "reference_logp" not in method.reads:
        return None
    return replace(method, alter=lambda batch: batch.with_tokens(reference_logp=found(batch)))


def mask_in_the_numerator_only(method: Method) -> Method:
    """Means within an answer divide by all of its tokens, the prompt's included."""
    return replace(method, alter=_counting_prompts)


def _counting_prompts(batch: Batch) -> Batch:
    def lengths(self: Batch) -> Tensor:
        return torch.bincount(self.sequence_id, minlength=self.num_sequences)

    kind = type(type(batch).__name__, (type(batch),), {"response_lengths": lengths})
    altered: Batch = kind(**{f.name: getattr(batch, f.name) for f in fields(batch)})
    return altered


# ---- mistakes in the loss --------------------------------------------------------------------------------------------
class Mistaken(Wrapped[Any]):
    """An objective that sees other statistics, or whose terms come out differently.

    Args:
        objective: with the mistake.
        seen: statistics and batch as it sees them.
        terms: of its loss, with the batch, as they come out.
    """

    VERSION = "1"

    def __init__(
        self,
        objective: Objective[Any],
        seen: Callable[[TokenStats, Batch], tuple[TokenStats, Batch]] = lambda stats, batch: (stats, batch),
        terms: Callable[[Mapping[str, Tensor], Batch], Mapping[str, Tensor]] = lambda terms, batch: terms,
    ) -> None:
        super().__init__(objective)
        self.seen = seen
        self.terms = terms

    @property
    def has_step_means(self) -> bool:
        """As the wrapped objective."""
        return self.objective.has_step_means

    def step_means(self, stats: TokenStats, batch: Batch) -> Mapping[str, Mean]:
        """Of the statistics as they are seen."""
        return self.objective.step_means(*self.seen(stats, batch))

    def __call__(self, stats: TokenStats, batch: Batch) -> Loss:
        loss = self.objective(*self.seen(stats, batch))
        return Loss(self.terms(loss.terms, batch), loss.metrics)


def off_by_one(method: Method) -> Method | None:
    """Every token is given the statistics of the token before it."""
    if not method.objective.needs & TOKENS:
        return None

    def seen(stats: TokenStats, batch: Batch) -> tuple[TokenStats, Batch]:
        moved = {n: batch.scored(torch.roll(x, 1)) if n in TOKENS else x for n, x in stats.values.items()}
        return TokenStats(moved), batch

    return method.of(Mistaken(method.objective, seen))


FROZEN_LOGP = frozenset({"reference_logp", "old_logp", "sampler_logp"})
"""Log-probabilities of other policies, and of the same one earlier."""


def mean_for_sum(method: Method) -> Method | None:
    """Statistics of each token are divided by the answer's length once more."""
    if not method.objective.needs & TOKENS:
        return None

    def seen(stats: TokenStats, batch: Batch) -> tuple[TokenStats, Batch]:
        share = 1 / batch.response_lengths().clamp_min(1).to(torch.float64)[batch.sequence_id]
        shorter = {n: x * share if n in TOKENS else x for n, x in stats.values.items()}
        kept = {n: x * share for n, x in batch.per_token.items() if n in FROZEN_LOGP}
        return TokenStats(shorter), batch.with_tokens(**kept)

    return method.of(Mistaken(method.objective, seen))


def sign(method: Method) -> Method:
    """The loss is maximised."""
    return method.of(Mistaken(method.objective, terms=lambda terms, batch: {k: -term for k, term in terms.items()}))


class _PerPart(Mistaken):
    """Remembers the units of the whole step, and divides by those of the part instead."""

    def __init__(self, objective: Objective[Any]) -> None:
        super().__init__(objective, terms=self._over_the_part)
        self._whole: Mapping[str, Tensor] = {}

    def units(self, batch: Batch) -> dict[str, Tensor]:
        self._whole = self.objective.units(batch)
        return dict(self._whole)

    def _over_the_part(self, terms: Mapping[str, Tensor], batch: Batch) -> Mapping[str, Tensor]:
        own = self.objective.units(batch)
        return {k: term * self._whole[k] / own[k].clamp_min(1e-300) for k, term in terms.items()}


def normalised_per_micro_batch(method: Method) -> Method:
    """Every micro-batch is divided by its own units, not by those of the step."""
    return method.of(_PerPart(method.objective))


def beta_twice(method: Method) -> Method | None:
    """The price of leaving the reference is squared."""
    objective, advantage = _dearer(method.objective), _dearer(method.advantage)
    credited = method.credited_by(advantage) if advantage else None
    return method.of(objective) if objective else credited


def _dearer(owner: Any) -> Any:
    """The same part with its price squared; None where it has none."""
    changed = copy.copy(owner)
    if isinstance(owner, WeightedSum):
        changed.weights = {key: weight * weight for key, weight in owner.weights.items()}
        return changed if changed.weights != owner.weights else None
    for name in ("beta", "tau"):
        price = getattr(owner, name, None)
        if isinstance(price, float) and price not in (0.0, 1.0):
            object.__setattr__(changed, name, price * price)
            return changed
    return None


TOKENS: Final = frozenset({"logp", "kl_to_teacher", "kl_from_teacher"})
"""Statistics that each token has, and whose place matters."""

MISTAKES: Final[tuple[Callable[[Method], Method | None], ...]] = (
    drops_eos,
    off_by_one,
    mean_for_sum,
    mask_in_the_numerator_only,
    beta_twice,
    sign,
    no_reference,
    stale_reference,
    normalised_per_micro_batch,
)


# ---- are they caught? ------------------------------------------------------------------------------------------------
def mutations(method: Method) -> list[Mutation]:
    """Make every mistake in a method that declares an optimum, and see whether it still ends there."""
    declared = method.declared
    assert not isinstance(declared, NoneKnown), "a mistake can be told by where the method ends"
    with one_thread():
        return [_tried(mistake, method, declared.tolerance) for mistake in MISTAKES]


def _tried(mistake: Callable[[Method], Method | None], method: Method, tolerance: float) -> Mutation:
    name = mistake.__name__
    mutant = mistake(method)
    if mutant is None:
        return Mutation(name, "not possible")
    try:
        if _same_direction(method, mutant):
            return Mutation(name, "equivalent")
        distance = mutant.distance(mutant.solve())
    except (ValueError, RuntimeError, IndexError):  # it does not even run
        return Mutation(name, "caught", float("inf"))
    return Mutation(name, "caught" if distance > tolerance else "unseen", distance)


def _same_direction(method: Method, mutant: Method) -> bool:
    """Whether the gradients are the same up to a positive factor, at two policies."""
    for seed in (1, 2):
        one, other = (_gradient(m, seed) for m in (method, mutant))
        cosine = float(torch.dot(one, other) / (one.norm() * other.norm()).clamp_min(1e-300))
        if not cosine > 1 - 1e-9:
            return False
    return True


def _gradient(method: Method, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(method.world.reference.shape, dtype=torch.float64, generator=generator)
    policy = TablePolicy(method.world, method.world.reference + 0.5 * noise)
    with torch.no_grad():
        policy.scores += torch.randn(policy.scores.shape, dtype=torch.float64, generator=generator)
    teacher = TablePolicy(method.world, method.world.teacher)
    online = OnPolicy(method.world, method.objective, method.advantage, method.alter)
    gradient(method.objective, online.rollouts(policy) if method.is_online else method.batch, policy, teacher)
    found = [p.grad for p in policy.parameters if p.grad is not None]
    return torch.cat([g.flatten() for g in found])
