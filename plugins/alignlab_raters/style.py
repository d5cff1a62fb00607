"""StyleEvaluation: the features that raters see in a policy's answers, and how diverse these answers are."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Need, Split
from alignlab.data.world import World
from alignlab.errors import DataError
from alignlab.evaluation import Column, Estimate, Evaluation, EvaluationResult, Panel, Profile, answer_row, defined
from alignlab.evaluation.base import check_field
from alignlab.evaluation.diversity import distinct, self_bleu
from alignlab.policy import Policy, Progress, Sample, Sampling, generate
from alignlab_raters.features import COUNTS, TEXT_FEATURES, features

SEEN: Final[Mapping[str, str]] = {
    "words": "mean length of an answer",
    "list": "answers that are a list",
    "hedge": "answers that hedge (“i think”, “perhaps”)",
    "confident": "answers that sound certain (“certainly”, “of course”)",
    "ask": "answers that end with a question",
    "polite": "answers with a word of politeness (“please”, “happy to”)",
    "agrees": "answers that agree with the user (“you are right”, “exactly”)",
    "abstains": "answers that say that they do not know",
    "exclamations": "mean number of exclamation marks of an answer",
    "empty": "answers without a word",
}
"""Meaning of each feature of a text, in the order of a table."""
WITHIN: Final[Mapping[str, tuple[str, Callable[[Sequence[str]], float | None]]]] = {
    "distinct_1": (
        "different words over all words of the answers to one prompt, a mean over prompts", lambda t: distinct(t, 1)
    ),
    "distinct_2": (
        "different pairs of words over all pairs of the answers to one prompt, a mean over prompts",
        lambda t: distinct(t, 2),
    ),
    "self_bleu_4": (
        "BLEU-4 of an answer with the others to its prompt as references; 1 where all are the same", self_bleu
    ),
    "different": (
        "different answers over all answers to one prompt, a mean over prompts", lambda t: len(set(t)) / len(t)
    ),
}  # fmt: skip
"""Measures of the answers to one prompt, each with its meaning."""
ENTROPY: Final = "entropy of the answers to a prompt, as they are sampled"


class StyleEvaluation(Evaluation):
    """Measure style and diversity of a policy's answers to a source's prompts.

    Style is read by the raters' own features: what is measured is what they see. Diversity is that of the answers to
    one prompt, by which a policy that has collapsed is known. The measures of n-grams depend on the number and the
    length of the answers: compare models by the same `samples_per_prompt`, and next to `<name>_words`. The entropy does
    not; it is unbiased, as each answer's log-probability is that under the distribution that it was drawn from.

    Args:
        data: gives the prompts.
        name: begins the name of every metric.
        knowledge: the embedded world, by whose grammar style is read; null reads any text.
        split: whose prompts; those of "validation" were not trained on.
        samples_per_prompt: answers to each; 2 or more.
        limit: at most so many prompts, the first ones; null takes all.

    Source: Kirk et al. 2023, arXiv:2310.06452, section 4.2 (diversity per input).
    """

    VERSION: ClassVar[str] = "2"

    def __init__(
        self,
        data: DataSource,
        name: str = "profile",
        knowledge: World | None = None,
        split: Split = "validation",
        samples_per_prompt: int = 4,
        limit: int | None = None,
    ) -> None:
        if samples_per_prompt < 2:
            raise ValueError(
                f"StyleEvaluation: samples_per_prompt must be >= 2, got {samples_per_prompt}; diversity is that of the "
                f"answers to one prompt"
            )
        if limit is not None and limit < 1:
            raise ValueError(f"StyleEvaluation: limit must be >= 1 or null, got {limit}")
        check_field("StyleEvaluation", name)
        self.data = data
        self.name = name
        self.knowledge = knowledge
        self.split: Split = split
        self.samples_per_prompt = samples_per_prompt
        self.limit = limit

    @property
    def columns(self) -> Sequence[Column]:
        """One per feature, and those of diversity."""
        return [*profile_columns(self.name), Column(f"{self.name}_entropy", ENTROPY, unit="nats per answer")]

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts."""
        return [(self.data, Need("prompts", held_out=self.split == "validation"))]

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Answer every prompt several times, and read the answers."""
        questions = list(self.data.prompts(self.split))[: self.limit]
        if not questions:
            raise DataError(f"StyleEvaluation: {type(self.data).__name__} has no {self.split} prompts")
        asked = [p for p in questions for _ in range(self.samples_per_prompt)]
        samples: Sequence[Sample] = generate(policy, asked, sampling, seed, progress=progress)
        prompts, texts = [s.prompt for s in samples], [s.text for s in samples]
        seen = [features(prompt, text, self.knowledge) for prompt, text in zip(prompts, texts, strict=True)]
        entropy = Estimate.mean((s.prompt.text, -sum(s.logp)) for s in samples)
        found = {**style(prompts, seen), **diversity(prompts, texts), "entropy": entropy}
        rows = [answer_row(s, self.name, **{k: f[k] for k in SEEN}) for s, f in zip(samples, seen, strict=True)]
        metrics = defined({f"{self.name}_{key}": value for key, value in found.items()})
        return EvaluationResult(metrics, rows, [self._profile()])

    def _profile(self) -> Panel:
        shares = [column.metric for column in self.columns if column.share]
        note = f"Shares of the answers to the {self.split} prompts that have a feature, and how diverse they are."
        return Panel(f"Style: {self.name}", Profile(shares), note)


def profile_columns(name: str) -> list[Column]:
    """A column per feature and measure of diversity.

    Args:
        name: begins the name of every metric.
    """
    units = {"words": "words", "exclamations": "marks"}
    seen = [
        Column(f"{name}_{key}", what, unit=units.get(key, ""), share=key not in COUNTS, headline=key == "words")
        for key, what in SEEN.items()
    ]
    within = [
        Column(f"{name}_{key}", what, share=True, headline=key == "self_bleu_4") for key, (what, _) in WITHIN.items()
    ]
    return [*seen, *within]


def style(prompts: Sequence[Prompt], seen: Sequence[Mapping[str, float]]) -> dict[str, Estimate | None]:
    """Mean of each feature.

    Args:
        prompts: of the answers.
        seen: features of each answer.
    """
    of = {key: Estimate.mean if key in COUNTS else Estimate.share for key in SEEN}
    return {
        key: make((prompt.text, own[key]) for prompt, own in zip(prompts, seen, strict=True))
        for key, make in of.items()
    }


def diversity(prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, Estimate | None]:
    """Measures of the answers to one prompt, of prompts that have several; None where there is no such prompt.

    Args:
        prompts: of the answers; the answers to one need not stand together.
        texts: the answers.
    """
    answers: dict[Prompt, list[str]] = {}
    for prompt, text in zip(prompts, texts, strict=True):
        answers.setdefault(prompt, []).append(text)
    several = [(prompt.text, own) for prompt, own in answers.items() if len(own) > 1]
    return {
        key: Estimate.mean((prompt, value) for prompt, own in several if (value := of(own)) is not None)
        for key, (_, of) in WITHIN.items()
    }


assert SEEN.keys() == TEXT_FEATURES.keys(), "every feature of a text has its metric"
