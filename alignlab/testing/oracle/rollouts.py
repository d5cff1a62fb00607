"""The buffer that a policy would sample, in expectation: every answer, or group of answers, by its probability.

Axes: P prompts, Y answers, K states of a prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.advantage import Advantage, credited
from alignlab.batch import RolloutBatch
from alignlab.objective import Objective
from alignlab.optimum import Credit
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.world import World

_LOGP = frozenset({"logp"})


@dataclass(frozen=True)
class OnPolicy:
    """An online method in the world: what it learns from, at the policy that sampled it.

    Args:
        world: gives the answers and their rewards.
        objective: on rollouts, or on what `make` turns them into.
        advantage: credits the rollouts; None where the objective needs none.
        alter: changes the rollouts before they are credited; for mutants.
    """

    world: World
    objective: Objective[Any]
    advantage: Advantage | None = None
    alter: Callable[[Any], Any] | None = None

    @property
    def grouped(self) -> bool:
        """Whether groups of two answers are enumerated: for advantages that compare the answers to one prompt."""
        return self.advantage is not None and "group" in self.advantage.reads

    @cached_property
    def teacher(self) -> TablePolicy:
        """The world's."""
        return TablePolicy(self.world, self.world.teacher)

    @cached_property
    def _template(self) -> RolloutBatch:
        rollouts = self.world.rollouts(self.grouped)
        reference = TablePolicy(self.world).token_stats(rollouts, _LOGP).logp.detach()
        rollouts = rollouts.with_tokens(reference_logp=reference)
        return self.alter(rollouts) if self.alter else rollouts

    def rollouts(self, policy: TablePolicy) -> RolloutBatch:
        """Everything that this policy would sample, credited.

        Raises:
            ValueError: the objective reads what neither the rollouts nor the advantage have.
        """
        answer = self._template.sequence("answer")
        probability = policy.log_probability().exp().flatten()[answer]
        if self.grouped:  # both answers of a group must have been drawn
            probability = probability.view(-1, 2).prod(1, keepdim=True).expand(-1, 2).flatten()
        with torch.no_grad():
            old_logp = policy.token_stats(self._template, _LOGP).logp
            rollouts = replace(self._template, weight=probability).with_tokens(old_logp=old_logp)
            if "sampler_logp" in self.objective.reads:  # the sampler is the trainer
                rollouts = rollouts.with_tokens(sampler_logp=old_logp)
            if "old_value" in self.objective.reads | (self.advantage.reads if self.advantage else frozenset()):
                rollouts = rollouts.with_tokens(old_value=self._values(policy, rollouts))
            rollouts = credited(self.advantage, rollouts) if self.advantage else rollouts
        known = {*rollouts.per_token, *rollouts.per_sequence, *rollouts.per_unit}
        if missing := sorted(self.objective.reads - known):
            with_what = type(self.advantage).__name__ if self.advantage else "no advantage"
            raise ValueError(
                f"{type(self.objective).__name__} reads {', '.join(missing)}, which rollouts with {with_what} do not "
                f"have; name an advantage that fills it in"
            )
        return rollouts

    @property
    def _paid(self) -> tuple[Float[Tensor, "P Y"], float]:
        """The reward that an answer is credited with, and the price of a nat that is paid in it."""
        declared = self.advantage.optimum() if self.advantage is not None else None
        credit = declared if isinstance(declared, Credit) else Credit()
        return self.world.tables.penalised(credit.penalty).reward, credit.beta

    def _values(self, policy: TablePolicy, rollouts: RolloutBatch) -> Float[Tensor, "T"]:
        """The exact expectation of what is still to be paid, before each token."""
        reward, beta = self._paid
        values = self.world.values(policy.log_probability(), reward, beta)
        return rollouts.scored(values.flatten()[rollouts.token("state")])

    def visits(self, rollouts: RolloutBatch) -> Float[Tensor, "P K"]:
        """Share of the rollouts that pass through each state."""
        weight = rollouts.weight_by_token() / rollouts.weight.sum()
        shape = self.world.reference.shape[:2]
        found = weight.new_zeros(shape.numel()).index_add(0, rollouts.token("state"), weight)
        return found.view(shape)
