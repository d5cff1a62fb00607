"""A policy that is a table: one logit for every word in every state, and a score for every answer.

It gives the token statistics that a language model gives, in float64, to batches of an enumerable world.

Axes: P prompts, K states of a prompt, V words, T tokens, S sequences.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch
from alignlab.stats import TokenStats
from alignlab.testing.oracle.world import World


class TablePolicy:
    """Logits by state, scores by answer and forecasts by state.

    Args:
        world: whose batches it reads.
        logits: where it starts; the reference by default.
    """

    def __init__(self, world: World, logits: Float[Tensor, "P K V"] | None = None) -> None:
        self.world = world
        self.logits = (world.reference if logits is None else logits).clone().requires_grad_()
        self.scores = torch.zeros_like(world.reward).requires_grad_()
        self.values = torch.zeros(world.reference.shape[:2], dtype=torch.float64).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that can be learnt."""
        return [self.logits, self.scores, self.values]

    def token_stats(self, batch: Batch, needs: frozenset[str], teacher: "TablePolicy | None" = None) -> TokenStats:
        """The statistics that `needs` names, at the batch's temperature; 0 outside the response mask."""
        mask, state = batch.response_mask, batch.token("state")
        word = torch.where(mask, batch.tokens, 0)
        logits = self.logits.flatten(0, 1) / batch.temperature
        table = logits.log_softmax(-1)
        found = {
            "logp": table[state, word],
            "lse": logits.logsumexp(-1)[state],
            "entropy": -(table.exp() * table).sum(-1)[state],
            "value": self.values.flatten()[state],
        }
        if teacher is not None:
            other = (teacher.logits.flatten(0, 1) / batch.temperature).log_softmax(-1).detach()
            found["kl_to_teacher"] = (table.exp() * (table - other)).sum(-1)[state]
            found["kl_from_teacher"] = (other.exp() * (other - table)).sum(-1)[state]
        stats = {name: torch.where(mask, x, 0.0) for name, x in found.items() if name in needs}
        if "score" in needs:
            stats["score"] = self.scores.flatten()[batch.sequence("answer")]
        if "scores" in needs:
            stats["scores"] = self.scores.flatten()[batch.sequence("answer")][:, None]
        return TokenStats(stats)

    def log_probability(self) -> Float[Tensor, "P Y"]:
        """Of every answer, nats."""
        return self.world.of_answers(self.logits.detach())
