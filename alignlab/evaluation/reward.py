"""The mean reward of a policy's answers, by any reward source."""

from typing import ClassVar

from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError
from alignlab.evaluation.base import Evaluation, EvaluationResult, defined, share
from alignlab.policy import Policy, Progress, Sampling, generate
from alignlab.reward import RewardSource


class RewardEvaluation(Evaluation):
    """Mean reward, answer length and share of finished answers on a source's own prompts.

    Args:
        reward: scores the answers.
        data: gives the prompts.
        name: of the metric (and of the answers' column); the others are `answer_length`, in words, and `finished`.
        split: whose prompts; those of "validation" were not trained on.
        limit: at most so many prompts, the first ones; null takes all.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(
        self,
        reward: RewardSource,
        data: DataSource,
        name: str = "true_taste",
        split: Split = "validation",
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"RewardEvaluation: limit must be >= 1 or null, got {limit}")
        self.reward = reward
        self.data = data
        self.name = name
        self.split: Split = split
        self.limit = limit

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Answer every prompt once and score the answers."""
        prompts = list(self.data.prompts(self.split))[: self.limit]
        if not prompts:
            raise DataError(f"RewardEvaluation: {type(self.data).__name__} has no {self.split} prompts")
        samples = generate(policy, prompts, sampling, seed, progress=progress)
        scores = self.reward.score([s.prompt for s in samples], [s.text for s in samples]).tolist()
        rows = [
            {"prompt": s.prompt.text, "answer": s.text, "kind": self.name, "finished": s.finished, self.name: score}
            for s, score in zip(samples, scores, strict=True)
        ]
        metrics = {
            self.name: share(scores),
            "answer_length": share(len(s.text.split()) for s in samples),
            "finished": share(s.finished for s in samples),
        }
        return EvaluationResult(defined(metrics), rows)
