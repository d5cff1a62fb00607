"""Dynamic sampling: prompts whose answers all earn the same are replaced by others before the buffer is credited."""

from collections.abc import Sequence
from typing import Any, ClassVar

from alignlab import RolloutBatch
from alignlab.advantage import without_signal
from alignlab.batch import concatenate
from alignlab.data.records import Prompt
from alignlab.data.rows import permutation
from alignlab.seed import fold_in
from alignlab.training import PolicyGradientStage


class DynamicSampling(PolicyGradientStage):
    """A policy gradient on groups of answers that carry a signal, so that a step's size does not fall as it learns.

    A group whose rewards are equal up to rounding is dropped, and another prompt is answered in its place; after
    `rounds` rounds, groups without a signal fill up what is missing. Which prompts are drawn depends on the seed, the
    buffer's number and the round alone. What is logged of a buffer is of the groups that were kept, so that its reward
    is not that of the policy; validation is.

    Args:
        rounds: of sampling, at most; 1 replaces nothing.

    Source: Yu et al. 2025 (DAPO), arXiv:2503.14476, section 3.2.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, *, rounds: int = 4, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rounds = rounds
        if rounds < 1:
            raise ValueError(f"DynamicSampling: rounds must be >= 1, got {rounds}; the first one samples")
        if self.samples_per_prompt < 2:
            raise ValueError(
                f"DynamicSampling: samples_per_prompt must be >= 2, got {self.samples_per_prompt}; an answer alone "
                f"carries no signal"
            )

    def sample(self, prompts: Sequence[Prompt], seed: int) -> RolloutBatch:
        """Answers to the prompts, and to others in place of those without a signal; kept groups come first."""
        found = super().sample(prompts, seed)
        for number in range(1, self.rounds):
            is_empty = without_signal(found.sequence("reward"), found.group)
            kept, empty = [(is_empty == x).nonzero()[:, 0].tolist() for x in (False, True)]
            if not empty:
                break
            own = fold_in(seed, number)
            others = permutation(len(self._prompts), own, 0)[: len(empty) // self.samples_per_prompt]
            fresh = super().sample([self._prompts[i] for i in others], own)
            # Where there are fewer prompts than gaps, some of the dropped groups stay.
            found = concatenate([found.select_units([*kept, *empty[fresh.num_units :]]), fresh])
        return found
