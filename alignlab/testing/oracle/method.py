"""A method in the enumerable world: what it is trained on there, where it says that it ends, and where it does.

Axes: P prompts, Y answers to each prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.advantage import Advantage
from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch
from alignlab.objective import Objective
from alignlab.optimum import NoneKnown, Optimum, PolicyGradient, RewardItself, Tilted, combined
from alignlab.optimum.tables import kl
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.testing.oracle.solve import fixed_point, minimise, natural_gradient
from alignlab.testing.oracle.world import World

PROMPTS = 4
"""That are trained."""
LOGP = frozenset({"logp"})
"""Needed of a reference."""


@dataclass(frozen=True)
class Method:
    """An objective, and the advantage that goes with it.

    Args:
        objective: what is trained by.
        advantage: credits rollouts; None for objectives on anything else, and where rollouts need none.
        trains_on: the batch that a stage gives to it, where its objective takes any.
        alter: changes the batch that the objective and the advantage see; for mutants.
        held_against: an optimum to use instead of the declared one; for mutants.
        within: a world to use instead of the one that suits the declared optimum; to compare methods in one world. It
            needs a prompt more than the four that are measured, where the method is online.
    """

    objective: Objective[Any]
    advantage: Advantage | None = None
    trains_on: type[Batch] | None = None
    alter: Callable[[Batch], Batch] | None = None
    held_against: Optimum | RewardItself | NoneKnown | None = None
    within: World | None = None

    @cached_property
    def declared(self) -> Optimum | RewardItself | NoneKnown:
        """Where it says that it ends."""
        if self.held_against is not None:
            return self.held_against
        found = self.objective.optimum()
        if not isinstance(found, PolicyGradient):
            return found
        if not found.credit:
            return NoneKnown("a KL term alone stays at the reference; add it to a policy gradient with WeightedSum")
        if self.advantage is None:
            return NoneKnown("a policy gradient ends where its advantage leads; name one with advantage=...")
        return combined(found, self.advantage.optimum())

    def of(self, objective: Objective[Any]) -> "Method":
        """The same with another objective, held against the same optimum in the same world."""
        return replace(self, objective=objective, held_against=self.declared)

    def credited_by(self, advantage: Advantage) -> "Method":
        """The same with another advantage, held against the same optimum in the same world."""
        return replace(self, advantage=advantage, held_against=self.declared)

    @property
    def reads(self) -> frozenset[str]:
        """Extras that its parts read."""
        return self.objective.reads | (self.advantage.reads if self.advantage else frozenset())

    @cached_property
    def world(self) -> World:
        """The world, its rewards scaled to what is declared; online it has a further prompt that is not trained."""
        if self.within is not None:
            return self.within
        scale = self.declared.scale if isinstance(self.declared, Optimum) else 1.0
        return World(PROMPTS + self.is_online, scale=scale)

    @cached_property
    def takes(self) -> type[Batch]:
        """The batch that it learns from."""
        return self.trains_on or self.objective.takes or Batch

    @cached_property
    def is_online(self) -> bool:
        """Whether it learns from answers that it samples itself."""
        return issubclass(self.takes, RolloutBatch)

    def solve(self) -> TablePolicy:
        """The policy, or the scores, at which training ends."""
        if self.is_online:
            method = OnPolicy(self.world, self.objective, self.advantage, self.alter)
            return TablePolicy(self.world, fixed_point(partial(natural_gradient, method), self.world.reference))
        policy = TablePolicy(self.world)
        minimise(self.objective, self.batch, policy, TablePolicy(self.world, self.world.teacher))
        return policy

    @cached_property
    def batch(self) -> Batch:
        """Everything that can be given to it, each by its probability."""
        if issubclass(self.takes, PreferenceBatch):
            batch: Batch = self._judged()
        elif issubclass(self.takes, LabelledBatch):
            batch = self.world.labelled("mismatched" in self.objective.reads)
        else:
            batch = self.world.texts()
        if "reference_logp" in self.objective.reads:
            reference = TablePolicy(self.world).token_stats(batch, LOGP).logp.detach()
            batch = batch.with_tokens(reference_logp=reference)
        return self.alter(batch) if self.alter else batch

    def _judged(self) -> PreferenceBatch:
        """Pairs or longer lists, from the raters whose judgements are declared to lead to the optimum."""
        declared = self.declared
        if isinstance(declared, Tilted) and declared.ranked > 2:
            return self.world.lists(declared.ranked)
        flips = declared.flips if isinstance(declared, Tilted) else 0.0
        ties = declared.ties if isinstance(declared, Tilted | RewardItself) else 0.0
        return self.world.pairs(flips, ties)

    # ---- how far it is from what it declared -----------------------------------------------------------------------
    def distance(self, policy: TablePolicy) -> float:
        """KL from the declared optimum, nats, or the largest difference of a score, reward units; of the worst prompt.

        Infinite where training came to no finite end.
        """
        if isinstance(self.declared, RewardItself):
            away = policy.scores.detach() - self.world.reward
            if self.declared.constant:
                away = away - away.mean(-1, keepdim=True)
            return _worst(away.abs())
        return self.distance_of(policy.log_probability())

    def distance_of(self, logp: Float[Tensor, "P Y"]) -> float:
        """KL(policy || declared optimum), nats, of the worst prompt."""
        assert isinstance(self.declared, Optimum)
        return _worst(kl(logp, self.declared.policy(self.world.tables))[:PROMPTS])


def _worst(x: Tensor) -> float:
    return float(x.max()) if bool(torch.isfinite(x).all()) else float("inf")
