"""A further objective on another batch, added to that of every step: PPO-ptx, and the like for any method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from alignlab.batch import Batch, TokenBatch
from alignlab.data.rows import Row, Truncation, document_rows, example_rows, order_at, token_batch
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.objective import Objective
from alignlab.policy import Policy
from alignlab.seed import fold_in
from alignlab.stats import TokenStats

_STREAM = 11
"""Of random numbers: the order of the records."""


@dataclass(frozen=True)
class MixedIn:
    """An objective on texts whose loss, times a weight, is added to the stage's own in every optimizer step.

    Each of the two is a mean over its own units. With `causal_lm` on documents next to PPO it is the pretraining mix of
    InstructGPT (PPO-ptx), which keeps a policy from forgetting what it read while it is rewarded for something else.

    Args:
        objective: on texts or answers; without extras, reference or teacher.
        data: gives the records.
        records: train on "documents" or on answered "instructions".
        weight: of its loss, per unit of the stage's own; > 0.
        batch_size: records of each step.

    Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 2.
    """

    VERSION: ClassVar[str] = "1"
    objective: Objective[Any]
    data: DataSource
    records: Literal["documents", "instructions"] = "documents"
    weight: float = 1.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        its = type(self.objective).__name__
        if not self.weight > 0:
            raise ValueError(f"MixedIn: weight must be > 0, got {self.weight}; leave the part out to do without it")
        if self.batch_size < 1:
            raise ValueError(f"MixedIn: batch_size must be >= 1, got {self.batch_size}; it counts records")
        if self.objective.takes is not None and not issubclass(TokenBatch, self.objective.takes):
            raise ValueError(f"MixedIn: {its} takes a {self.objective.takes.__name__}, but texts are mixed in")
        if missing := sorted(self.objective.reads):
            raise ValueError(f"MixedIn: {its} reads {', '.join(missing)}, which texts do not carry; choose another")
        if relative := sorted(n for n in self.objective.needs if "teacher" in n or n in ("value", "score", "scores")):
            raise ValueError(f"MixedIn: {its} needs {', '.join(relative)}, which texts do not have; choose another")

    @property
    def need(self) -> tuple[DataSource, Need]:
        """The records that it reads."""
        return self.data, Need(self.records, why="mixed_in")

    def rows(self, policy: Policy, length: int) -> Sequence[Row]:
        """All records, tokenised.

        Raises:
            DataError: there are none.
        """
        if self.records == "documents":
            rows = document_rows(policy.tokenizer, self.data.documents("train"), length)
        else:
            rows = example_rows(policy.tokenizer, self.data.instructions("train"), Truncation(length))
        if not rows:
            raise DataError(f"MixedIn: {type(self.data).__name__} has no {self.records} to mix in")
        return rows

    def batch_at(self, rows: Sequence[Row], step: int, seed: int) -> TokenBatch:
        """The records of a step, for all processes."""
        index = order_at(step, len(rows), self.batch_size, fold_in(seed, _STREAM))
        return token_batch([rows[i] for i in index])

    def token_stats(self, policy: Policy, batch: Batch) -> TokenStats:
        """The policy's statistics that the objective needs."""
        return policy.token_stats(batch, self.objective.needs)
