"""The next-token loss."""

from dataclasses import dataclass
from typing import ClassVar

from alignlab import Loss, Objective, TokenBatch, TokenStats
from alignlab.optimum import Declared, Imitated, NoneKnown


@dataclass(frozen=True)
class CausalLM(Objective[TokenBatch]):
    """Predict every next token: the mean over tokens of `-log p(token | those before it) + z * lse^2`.

    Args:
        z_loss: weight of the squared log-sum-exp of the logits, which keeps them from drifting; 0 leaves it out.

    Source: z-loss: Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5.
    """

    VERSION: ClassVar[str] = "1"
    needs: ClassVar[frozenset[str]] = frozenset({"logp", "lse"})
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        if self.z_loss < 0:
            raise ValueError(f"CausalLM: z_loss must be >= 0, got {self.z_loss}; it is a penalty")

    def optimum(self) -> Declared:
        """The distribution of the texts."""
        if self.z_loss:
            return NoneKnown("the z-loss bounds logits, which moves probabilities where they cannot be shifted freely")
        return Imitated()

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        nll = -stats.logp
        return self.loss(batch, loss=nll + self.z_loss * batch.scored(stats.lse).square(), metrics={"nll": nll})
