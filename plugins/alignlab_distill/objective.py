"""Divergences between a policy and a teacher, exact over the vocabulary."""

from dataclasses import dataclass
from typing import ClassVar

from alignlab import Batch, Loss, Objective, TokenStats
from alignlab.optimum import Declared, Taught


@dataclass(frozen=True)
class ForwardKL(Objective[Batch]):
    """Cover the teacher: mean over response tokens of KL(teacher || policy), in nats.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"kl_from_teacher"})

    def optimum(self) -> Declared:
        """The teacher."""
        return Taught()

    def __call__(self, stats: TokenStats, batch: Batch) -> Loss:
        return self.loss(batch, loss=stats.kl_from_teacher)


@dataclass(frozen=True)
class ReverseKL(Objective[Batch]):
    """Seek the teacher's modes: mean over response tokens of KL(policy || teacher), in nats.

    Source: Gu et al. 2024 (MiniLLM), arXiv:2306.08543, eq. 1, token by token.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"kl_to_teacher"})

    def optimum(self) -> Declared:
        """The teacher."""
        return Taught()

    def __call__(self, stats: TokenStats, batch: Batch) -> Loss:
        return self.loss(batch, loss=stats.kl_to_teacher)
