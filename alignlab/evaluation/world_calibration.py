"""Calibration in the embedded world: how sure a policy is of its answers, next to how often they are true.

How sure it is, is measured on one-word answers, as the probability of the whole answer: the word, and that it ends
there. An answer in a free style has the probability of its style in it, and its first token may be that of "certainly".
What a policy *says* of its sureness is read from answers to questions.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

import torch

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.data.world import World
from alignlab.evaluation.base import Evaluation, EvaluationResult, defined
from alignlab.evaluation.calibration import calibration_estimate, reliability
from alignlab.evaluation.world import check_own_world
from alignlab.evaluation.world_answers import Answered
from alignlab.metrics import Column, Estimate, Panel
from alignlab.policy import Policy, Progress, Sample, Sampling, generate
from alignlab.training.rollouts import rollout_batch

MAX_TOKENS: Final = 16384
"""Of one forward pass."""

CALIBRATION_COLUMNS: Final = (
    Column(
        "calibration_error",
        "expected calibration error of one-word answers: over bins of their probability, the mean distance between it "
        "and the share that is right",
        better=-1, share=True, headline=True,
    ),
    Column(
        "overconfidence",
        "mean probability of one-word answers minus the share that is right; below 0 the model is less sure than it "
        "could be",
        unit="share", headline=True,
    ),
    Column("probability_when_right", "mean probability of the right one-word answers", better=1, share=True),
    Column(
        "probability_when_wrong", "mean probability of the wrong one-word answers", better=-1, share=True, headline=True
    ),
    Column(
        "brier_score",
        "mean squared distance of the probability of a one-word answer from 1 if it is right, else from 0",
        better=-1, share=True,
    ),
    Column(
        "hedging_when_right", "of the right answers to questions, those that begin with “i think”",
        better=-1, share=True, headline=True,
    ),
)  # fmt: skip


class CalibrationEvaluation(Evaluation):
    """Compare the probability of a policy's answers about held-out people with how often they are true.

    One-word answers are the likeliest words, whatever the `sampling`, with their probability at temperature 1; what is
    not one word is not right. Answers to questions, in which hedging is read, are sampled.

    Args:
        world: the world that the policy was trained on; another one is refused.
        bins: of the calibration error, from 0 to 1.
        samples_per_question: answers sampled to each question.

    Source: Guo et al. 2017, arXiv:1706.04599; of language models Kadavath et al. 2022, arXiv:2207.05221; the score of
        Brier 1950, Monthly Weather Review 78(1), for two classes, of which one is counted.
    """

    VERSION: ClassVar[str] = "2"

    def __init__(self, world: World, bins: int = 10, samples_per_question: int = 3) -> None:
        for name, value in (("bins", bins), ("samples_per_question", samples_per_question)):
            if value < 1:
                raise ValueError(f"CalibrationEvaluation: {name} must be >= 1, got {value}")
        self.world = world
        self.bins = bins
        self.samples_per_question = samples_per_question

    @property
    def columns(self) -> Sequence[Column]:
        """Calibration of probabilities, and hedging."""
        return CALIBRATION_COLUMNS

    def check_model(self, model: Artifact) -> None:
        """Refuse a model that was trained in another world."""
        check_own_world(type(self).__name__, self.world, model)

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Ask for words, then for sentences."""
        asks = self.world.evaluation_asks()
        short = [Prompt.user(a.text) for a in asks if a.kind == "one_word"]
        long = [Prompt.user(a.text) for a in asks if a.kind == "question"] * self.samples_per_question
        greedy = Sampling(temperature=0.0, max_new_tokens=sampling.max_new_tokens)
        total = len(short) + len(long)

        def later(before: int) -> Progress:
            return lambda done, _: progress(before + done, total) if progress is not None else None

        words = generate(policy, short, greedy, seed, progress=later(0))
        sentences = generate(policy, long, sampling, seed, progress=later(len(short)))
        probabilities = answer_probabilities(policy, words)
        said = [Answered.of(self.world, s, {"probability": p}) for s, p in zip(words, probabilities, strict=True)]
        told = [Answered.of(self.world, s, {}) for s in sentences]
        metrics = self._metrics(said, told)
        rows = [a.row(self.world.people) for a in (*said, *told)]
        return EvaluationResult(defined(metrics), rows, self._panels(said))

    def _panels(self, said: Sequence[Answered]) -> list[Panel]:
        return reliability(*_outcomes(said), self.bins, "one-word answers", ("calibration_error", "overconfidence"))

    def _metrics(self, said: Sequence[Answered], told: Sequence[Answered]) -> dict[str, Estimate | None]:
        prompts, sure, right = _outcomes(said)
        each = list(zip(prompts, sure, right, strict=True))
        return {
            "calibration_error": calibration_estimate(prompts, sure, right, self.bins),
            "overconfidence": Estimate.mean((text, p - r) for text, p, r in each),
            "probability_when_right": Estimate.mean((text, p) for text, p, r in each if r),
            "probability_when_wrong": Estimate.mean(
                (a.sample.prompt.text, p) for a, p in zip(said, sure, strict=True) if a.reading.wrong
            ),
            "brier_score": Estimate.mean((text, (p - r) ** 2) for text, p, r in each),
            "hedging_when_right": Estimate.share(
                (a.sample.prompt.text, a.reading.hedged) for a in told if a.reading.right
            ),
        }


def _outcomes(said: Sequence[Answered]) -> tuple[list[str], list[float], list[float]]:
    """Prompt and probability of each answer, and 1 where it is right, else 0."""
    found = [(a.sample.prompt.text, a.rewards["probability"], float(a.reading.right)) for a in said]
    return [text for text, _, _ in found], [p for _, p, _ in found], [r for _, _, r in found]


@torch.no_grad()
def answer_probabilities(policy: Policy, samples: Sequence[Sample]) -> list[float]:
    """Probability of each answer, its stop token included, at temperature 1."""
    batch, training = rollout_batch(samples, 1, temperature=1.0), policy.training
    policy.eval()
    parts = [p.to(policy.device) for p in batch.micro_batches(MAX_TOKENS)]
    logp = torch.cat([policy.token_stats(p, frozenset({"logp"})).logp.double().cpu() for p in parts])
    policy.train(training)
    found: list[float] = batch.sum_by_sequence(logp).exp().clamp(max=1.0).tolist()
    return found
