"""The loss of answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from alignlab.batch import TokenBatch
from alignlab.objective import Loss, Objective, token_units
from alignlab.stats import TokenStats


@dataclass(frozen=True)
class AnswerNLL(Objective[TokenBatch]):
    """Imitate the answers: the mean over response tokens of `-log p(token | prompt and those before it)`.

    Prompt tokens are not scored; the stop token is, or the model would never stop. The mean runs over the tokens of
    the whole optimizer step, so that every token weighs the same, whichever answer or micro-batch it is in.

    Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3.5.
    """

    VERSION: ClassVar[str] = "1"

    def units(self, batch: TokenBatch) -> Mapping[str, Tensor]:
        """Response tokens."""
        return {"loss": token_units(batch)}

    def __call__(self, now: TokenStats, batch: TokenBatch, context: Tensor | None = None) -> Loss:
        likely = now.logp.exp()
        return Loss.over_tokens(-now.logp, batch, token_probability=likely)
