"""Distillation on the student's own answers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from alignlab import Artifact, RolloutBatch, StageContext
from alignlab.batch import concatenate
from alignlab.data.chat import encode_answer
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.policy import Sample
from alignlab.training import OnlineStage
from alignlab.training.rollouts import share_of, summary


class OnPolicyDistillation(OnlineStage[RolloutBatch]):
    """Learn the teacher's next-token distributions at the tokens that the student samples itself.

    The divergence at each token is exact over the vocabulary; that it also changes which tokens are sampled later is
    not differentiated, as in the source. Nothing has to score the answers: a reward that is given is logged alone.

    Args:
        given_share: share of a buffer's prompts that are answered by the data instead of the student, 0 to 1 (1 -
            lambda in the source). Its instructions must answer every prompt then.
        inputs: `policy`, the student; `teacher`; `reward`, to be logged.

    Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, algorithm 1.
    """

    VERSION: ClassVar[str] = "1"
    NEEDS_REWARD: ClassVar[bool] = False
    MONITOR: ClassVar[str] = "loss"
    HIGHER_IS_BETTER: ClassVar[bool] = False
    PROVIDES: ClassVar[frozenset[str]] = OnlineStage.PROVIDES - {"reward"}

    def __init__(self, *, given_share: float = 0.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        if not 0 <= given_share <= 1:
            raise ValueError(f"OnPolicyDistillation: given_share must be from 0 to 1, got {given_share}; it is a share")
        self.given_share = given_share
        self._given: dict[Prompt, list[str]] = {}

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts; and their answers, where some are given."""
        why = f"given_share={self.given_share}"
        given = [(self.data, Need("instructions", why=why))] if self.given_share else []
        return [*super().data_needs(), *given]

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """As every online stage; and the given answers, where they are used."""
        super().prepare(inputs, context)
        if self.given_share:
            for example in self.data.instructions("train"):
                self._given.setdefault(example.prompt, []).append(example.answer)

    def sample(self, prompts: Sequence[Prompt], seed: int) -> RolloutBatch:
        """The student's answers to some prompts, and the data's to the others; prompts come in random order."""
        own = len(prompts) - round(len(prompts) * self.given_share)
        parts = [super().sample(prompts[:own], seed)] if own else []
        return concatenate([*parts, *([self._answered(prompts[own:])] if own < len(prompts) else [])])

    def _answered(self, prompts: Sequence[Prompt]) -> RolloutBatch:
        each = self.samples_per_prompt
        samples = [self._sample(prompts[i], k) for i in share_of(len(prompts)) for k in range(each)]
        return self.collector.completed(self.policy, samples, each, self.reads())

    def _sample(self, prompt: Prompt, number: int) -> Sample:
        """A given answer as if it had been sampled, cut at the context; a prompt's answers take turns."""
        if prompt not in self._given:
            raise DataError(
                f"OnPolicyDistillation: no instruction answers the prompt {prompt.text[:60]!r}; answer all prompts, or "
                f"set given_share to 0"
            )
        answers = self._given[prompt]
        text = answers[number % len(answers)]
        tokens, mask = encode_answer(self.policy.tokenizer, prompt, text)
        start, end = mask.index(True), self.policy.context
        return Sample(prompt, tuple(tokens[:start]), tuple(tokens[start:end]), text, finished=len(tokens) <= end)

    def train_on(self, rollouts: RolloutBatch, step: int) -> RolloutBatch:
        """The rollouts as they are."""
        return rollouts

    def validate_now(self) -> dict[str, float]:
        """Loss on the student's own answers to held-out prompts, as it gives them now; their length and the like."""
        rollouts = self.held_out_rollouts(self.policy, self.reads())
        return {**summary(rollouts), **self.means_over([rollouts])}
