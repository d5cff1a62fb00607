"""The mean reward of a policy's answers, by any reward source."""

from collections.abc import Sequence
from typing import ClassVar

from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError
from alignlab.evaluation.base import Evaluation, EvaluationResult, answer_row, check_field, defined
from alignlab.metrics import Column, Estimate
from alignlab.policy import Policy, Progress, Sampling, generate
from alignlab.reward import RewardSource, score_in_parts


class RewardEvaluation(Evaluation):
    """Measure the mean reward, length and share of finished answers to a source's own prompts.

    A reward that is made of parts also has the mean of each, as `<name>_<part>`.

    Args:
        reward: scores the answers.
        data: gives the prompts.
        name: of the metric (and of the samples' column); the others are `<name>_answer_length` and `<name>_finished`.
        split: whose prompts; those of "validation" were not trained on.
        limit: at most so many prompts, the first ones; null takes all.
    """

    VERSION: ClassVar[str] = "2"

    def __init__(
        self,
        reward: RewardSource,
        data: DataSource,
        name: str = "reward",
        split: Split = "validation",
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"RewardEvaluation: limit must be >= 1 or null, got {limit}")
        if reward.inputs:
            raise ValueError(
                f"RewardEvaluation: reward scores with reward models ({', '.join(reward.inputs)}), which an evaluation "
                f"does not have; name a reward that needs none"
            )
        check_field("RewardEvaluation", name)
        self.reward = reward
        self.data = data
        self.name = name
        self.split: Split = split
        self.limit = limit

    @property
    def columns(self) -> Sequence[Column]:
        """The mean reward, with the name of its reward source, and its parts; length and share of finished answers."""
        source, prompts = self.reward.describe(), f"answers to the {self.split} prompts"
        part = f"mean of a part of the reward of the {prompts}, by {source}"
        return (
            Column(
                self.name, f"mean reward of the {prompts}, by {source}", unit="reward units", better=1, headline=True,
                argument="reward", reference=source,
            ),
            *(Column(f"{self.name}_{p}", part, unit="its own", reference=source) for p in self.reward.parts),
            Column(f"{self.name}_answer_length", f"mean length of the {prompts}", unit="words"),
            Column(f"{self.name}_finished", f"{prompts} that end by themselves", better=1, share=True),
        )  # fmt: skip

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Answer every prompt once and score the answers."""
        prompts = list(self.data.prompts(self.split))[: self.limit]
        if not prompts:
            raise DataError(f"RewardEvaluation: {type(self.data).__name__} has no {self.split} prompts")
        samples = generate(policy, prompts, sampling, seed, progress=progress)
        texts = [s.prompt.text for s in samples]
        found = score_in_parts(self.reward, [s.prompt for s in samples], [s.text for s in samples])
        parts = {f"{self.name}_{part}": values for part, values in found.parts.items()}
        scores = {name: values.tolist() for name, values in {self.name: found.total, **parts}.items()}
        rows = [answer_row(s, self.name, **{k: v[i] for k, v in scores.items()}) for i, s in enumerate(samples)]
        lengths = [len(s.text.split()) for s in samples]
        metrics = {
            **{name: Estimate.mean(zip(texts, values, strict=True)) for name, values in scores.items()},
            f"{self.name}_answer_length": Estimate.mean(zip(texts, lengths, strict=True)),
            f"{self.name}_finished": Estimate.share((s.prompt.text, s.finished) for s in samples),
        }
        return EvaluationResult(defined(metrics), rows)
