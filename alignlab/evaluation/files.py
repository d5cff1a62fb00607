"""Evaluation on a user's own files: how well a policy predicts what was held out, and how it answers.

There is no ground truth here, only held-out records; so no metric tells whether an answer is right. Read the samples.

Axes: S sequences.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.data.coverage import coverage
from alignlab.data.files import Files
from alignlab.data.preflight import check_settings
from alignlab.data.rows import (
    ComparisonEncoder,
    ExampleEncoder,
    Row,
    Truncation,
    collected,
    document_rows,
    permutation,
    quiet,
    token_batch,
)
from alignlab.data.source import DataSource, Need, Records
from alignlab.evaluation.base import Evaluation, EvaluationResult, answer_row, defined
from alignlab.metrics import Column, Estimate
from alignlab.policy import Policy, Progress, Sample, Sampling, complete, generate, leaves_room
from alignlab.policy.previews import opening

T = TypeVar("T")
MAX_TOKENS = 8192
"""Tokens of one forward pass; memory only."""
TIE = 1e-6
"""Nats; below it, two log-likelihoods are the same but for rounding."""

FILES_COLUMNS: Final = (
    Column(
        "document_bits_per_character",
        "bits per character of held-out documents; comparable between tokenizers that can write every character",
        unit="bits per character", better=-1, headline=True,
    ),
    Column(
        "answer_loss", "negative log-likelihood of held-out answers, given their prompts",
        unit="nats per token", better=-1, headline=True,
    ),
    Column(
        "preference_accuracy",
        "held-out pairs whose chosen answer is likelier than the rejected one; a tie counts half",
        better=1, share=True, headline=True,
    ),
    Column(
        "preference_accuracy_per_token",
        "held-out pairs whose chosen answer is likelier per token, which does not favour the shorter one",
        better=1, share=True, headline=True,
    ),
    Column("finished", "answers to held-out prompts that end by themselves", better=1, share=True, headline=True),
    Column("answer_length", "mean length of an answer to a held-out prompt", unit="words", headline=True),
    Column(
        "document_loss", "negative log-likelihood of held-out documents; depends on the tokenizer",
        unit="nats per token", better=-1,
    ),
    Column("document_perplexity", "exponential of document_loss", unit="perplexity", better=-1),
    Column("answer_perplexity", "exponential of answer_loss", unit="perplexity", better=-1),
)  # fmt: skip

Found = Mapping[str, Estimate | None]


class FilesEvaluation(Evaluation):
    """Measure a policy on the held-out part of a user's own files.

    A role without a file is left out, and so is a record whose prompt alone fills the model's context, or a pair whose
    answers are the same within it. What cannot be measured on any record has no metric.

    `FILES_COLUMNS` describes each metric. Intervals are over records.

    Args:
        data: the files.
        records: at most so many held-out records of each kind are scored, picked once by a fixed shuffle.
        prompts: at most so many held-out prompts are answered.
        openings: at most so many held-out documents are continued, for the samples.
        opening_words: of such a document, given to the model.
    """

    VERSION: ClassVar[str] = "3"

    def __init__(
        self, data: Files, records: int = 200, prompts: int = 64, openings: int = 4, opening_words: int = 12
    ) -> None:
        for name, value in (("records", records), ("prompts", prompts), ("opening_words", opening_words)):
            if value < 1:
                raise ValueError(f"FilesEvaluation: {name} must be >= 1, got {value}")
        self.data = data
        self.records = records
        self.prompts = prompts
        self.openings = openings
        self.opening_words = opening_words

    @property
    def columns(self) -> Sequence[Column]:
        """Losses and accuracies on held-out records, and how answers end."""
        return FILES_COLUMNS

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Held-out records of every role that has a file; of any where none has one."""
        kinds: tuple[Records, ...] = ("documents", "instructions", "comparisons")
        there: list[Records] = [kind for kind in kinds if not self.data.lacks(kind)]
        there += ["prompts"] if self.data.has("prompts") else []
        return [(self.data, Need(kind, held_out=True)) for kind in there or [kinds[0]]]

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Score what was held out, then sample answers and continuations.

        Raises:
            MissingDataError: no file is named, or nothing is held out.
        """
        check_settings({type(self).__name__: self.data_needs()})
        training = policy.training
        policy.eval()
        quiet(policy.tokenizer)
        answered, continued = self._answers(policy, sampling, seed, progress), self._continued(policy, sampling, seed)
        metrics = {
            **self._documents(policy),
            **self._held_out_answers(policy),
            **self._pairs(policy),
            "finished": Estimate.share((s.prompt.text, s.finished) for s in answered),
            "answer_length": Estimate.mean((s.prompt.text, len(s.text.split())) for s in answered),
        }
        policy.train(training)
        samples = [*(_row(s, "instruction") for s in answered), *(_row(s, "document") for s in continued)]
        return EvaluationResult(defined(metrics), samples)

    # ---- what was held out ----------------------------------------------------------------------------------------
    def _documents(self, policy: Policy) -> Found:
        if not self.data.has("corpus"):
            return {}
        documents = _some(self.data.documents("validation"), self.records)
        if not documents:
            return {}
        loss = _loss(policy, document_rows(policy.tokenizer, documents, policy.context))
        found: dict[str, Estimate | None] = {"document_loss": loss, "document_perplexity": loss.mapped(math.exp)}
        texts = [d.text for d in documents]
        # An unknown word (`<unk>`) costs nothing, nor does a line break for which there is no token.
        if coverage(policy.tokenizer, texts).lossless:
            per_character = loss.count / sum(map(len, texts)) / math.log(2)
            found["document_bits_per_character"] = loss.scaled(per_character)
        return found

    def _held_out_answers(self, policy: Policy) -> Found:
        if not self.data.has("instructions"):
            return {}
        examples = _some(self.data.instructions("validation"), self.records)
        truncation = Truncation(policy.context)
        rows = collected(examples, ExampleEncoder(policy.tokenizer, truncation), "example", truncation)
        if not rows:
            return {}
        loss = _loss(policy, rows)
        return {"answer_loss": loss, "answer_perplexity": loss.mapped(math.exp)}

    def _pairs(self, policy: Policy) -> Found:
        if not self.data.has("preferences"):
            return {}
        pairs = _some(self.data.comparisons("validation"), self.records)
        truncation = Truncation(policy.context)
        rows = collected(pairs, ComparisonEncoder(policy.tokenizer, truncation), "comparison", truncation)
        if not rows:
            return {}
        logp, tokens = _score(policy, [row for pair in rows for row in pair])
        names = [chosen.name for chosen, _ in rows]
        return {
            "preference_accuracy": _share_ahead(names, logp),
            "preference_accuracy_per_token": _share_ahead(names, logp / tokens),
        }

    # ---- what it answers ------------------------------------------------------------------------------------------
    def _answers(self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None) -> list[Sample]:
        """Answers to held-out prompts; those that fill the model's context leave no room for one."""
        if self.data.lacks("prompts"):
            return []
        held = self.data.prompts("validation")
        fitting = [p for p in held if leaves_room(policy, p)]
        return generate(policy, _some(fitting, self.prompts), sampling, seed, progress=progress)

    def _continued(self, policy: Policy, sampling: Sampling, seed: int) -> list[Sample]:
        if not self.data.has("corpus"):
            return []
        documents = _some(self.data.documents("validation"), self.openings)
        return complete(policy, [opening(policy, d.text, self.opening_words) for d in documents], sampling, seed)


def _some(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the items, the same ones for every policy and seed."""
    return [items[i] for i in permutation(len(items), 0, 0)[:limit]]


@torch.no_grad()
def _score(policy: Policy, rows: Sequence[Row]) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
    """Log-probability (nats) and number of the scored tokens of each row."""
    found = list(_scored(policy, rows))
    return torch.cat([logp for logp, _ in found]), torch.cat([tokens for _, tokens in found])


def _scored(policy: Policy, rows: Sequence[Row]) -> Iterator[tuple[Tensor, Tensor]]:
    for part in token_batch(rows).micro_batches(MAX_TOKENS):
        logp = policy.token_stats(part.to(policy.device), frozenset({"logp"})).logp.cpu()
        yield part.sum_by_sequence(logp).double(), part.response_lengths().double()


def _loss(policy: Policy, rows: Sequence[Row]) -> Estimate:
    """Mean negative log-likelihood of the scored tokens, nats per token; its interval is over records."""
    logp, tokens = _score(policy, rows)
    found = Estimate.ratio(zip((row.name for row in rows), (-logp).tolist(), tokens.tolist(), strict=True))
    assert found is not None, "every row has scored tokens"
    return found


def _share_ahead(names: Sequence[str], x: Float[Tensor, "S"]) -> Estimate | None:
    """Share of pairs whose first sequence has the larger number; a tie (to rounding) counts half."""
    lead = x[0::2] - x[1::2]
    ahead = 0.5 + 0.5 * lead.sign() * (lead.abs() > TIE)
    return Estimate.share(zip(names, ahead.tolist(), strict=True))


def _row(sample: Sample, kind: str) -> dict[str, object]:
    return answer_row(sample, kind, words=len(sample.text.split()))
