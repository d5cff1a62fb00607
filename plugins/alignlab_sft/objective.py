"""The loss of answers."""

from dataclasses import dataclass
from typing import ClassVar

from alignlab import Loss, Objective, TokenBatch, TokenStats
from alignlab.objective import tokens
from alignlab.optimum import Declared, Imitated


@dataclass(frozen=True)
class AnswerNLL(Objective[TokenBatch]):
    """Imitate the answers: the mean over response tokens of `-log p(token | prompt and those before it)`.

    Prompt tokens are not scored; the stop token is, or the model would never stop. The mean runs over the tokens of
    the whole optimizer step, so that every token weighs the same, whichever answer or micro-batch it is in.

    Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3.5.
    """

    VERSION: ClassVar[str] = "1"
    per = {"loss": tokens}

    def optimum(self) -> Declared:
        """The distribution of the given answers."""
        return Imitated()

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=-stats.logp, metrics={"token_probability": stats.logp.exp()})
