"""Evaluation: a way of measuring a policy, and the metrics that it declares."""

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from alignlab.artifact import Artifact
from alignlab.data.source import DataSource, Need
from alignlab.metrics import Column, Panel
from alignlab.policy import Policy, Progress, Sample, Sampling


@dataclass(frozen=True)
class EvaluationResult:
    """Findings of one evaluation.

    Args:
        metrics: finite numbers by name, each declared in the evaluation's `columns`. An `Estimate` brings its interval
            along, and is compared between models on the prompts that they share; a plain number is compared without.
            What is undefined (a share of nothing) is left out, not set to 0.
        samples: the answers behind them. Each has `prompt`, `answer`, `kind` (groups them in the report) and
            `finished`; where they are known `truth` (the right answer), `verdict` (on the answer, in a few words) and
            `tone` (of the verdict: "good", "bad" or ""); and numbers and texts of the evaluation's own.
        panels: drawings, tables and texts for the report, as plain data; each title once.
    """

    metrics: Mapping[str, float]
    samples: Sequence[Mapping[str, object]] = ()
    panels: Sequence[Panel] = ()


FIELDS: Final = frozenset({"prompt", "answer", "kind", "finished", "truth", "verdict", "tone", "evaluation"})
"""Fields of a sample that have a meaning of their own."""


def check_field(owner: str, name: str) -> None:
    """Refuse a metric that is also written into samples and would hide one of their fields.

    Raises:
        ValueError: names `owner`.
    """
    if name in FIELDS:
        raise ValueError(f"{owner}: a metric cannot be called {name!r}, which is a field of every sample; rename it")


def check_name(owner: str, name: str) -> None:
    """Refuse a name that cannot begin those of metrics.

    Raises:
        ValueError: names `owner`.
    """
    if not re.fullmatch(r"\w*", name):
        raise ValueError(f"{owner}: name must be of letters, digits and underscores, got {name!r}")


def named(metric: str, name: str) -> str:
    """A metric under the name of its evaluation, so that a stage can have two of one kind; as it is under no name."""
    return f"{name}_{metric}" if name else metric


def renamed(column: Column, name: str) -> Column:
    """The column of a metric under the name of its evaluation."""
    return replace(column, metric=named(column.metric, name), title="", long="")


class Evaluation(abc.ABC):
    """Measure a policy. The same policy, sampling and seed give the same numbers.

    A concrete class states its `VERSION` (raise it when the same arguments begin to measure something else) and
    declares its metrics:

        class Politeness(Evaluation):
            VERSION = "1"
            columns = (Column("says_please", "answers with the word please", better=1, share=True, headline=True),)

            def __call__(self, policy, sampling, seed, progress=None):
                samples = generate(policy, self.prompts, sampling, seed, progress=progress)
                said = Estimate.share((s.prompt.text, "please" in s.text) for s in samples)
                return EvaluationResult(defined({"says_please": said}), [answer_row(s) for s in samples])

    A YAML file in the config group `evaluation` makes an option of it, and a stage takes it under any name:
    `pipeline.evaluate_dpo.evaluations.manners=politeness`.
    """

    VERSION: ClassVar[str]

    @property
    @abc.abstractmethod
    def columns(self) -> Sequence[Column]:
        """Every metric that it can return, in the order of a table."""

    def check_model(self, model: Artifact) -> None:  # noqa: B027  # most evaluations measure any model
        """Refuse a model that cannot be measured, before anything is sampled.

        Args:
            model: the policy's artifact.

        Raises:
            ConfigError: names the evaluation, the rule, what was found and what to set.
        """

    def data_needs(self) -> Sequence[tuple[DataSource, Need]]:
        """Records that the evaluation reads."""
        return ()

    @abc.abstractmethod
    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Measure.

        Args:
            policy: base, instruct or aligned: the prompts are the same for all. It is not changed.
            sampling: how it answers.
            seed: of the sampling.
            progress: receives (answers sampled, answers in all).
        """


def answer_row(sample: Sample, kind: str = "", **more: object) -> dict[str, object]:
    """A sampled answer as an evaluation's samples hold it.

    Args:
        sample: the answer.
        kind: groups answers in the report.
        more: `truth`, `verdict`, `tone`, and numbers and texts of the evaluation's own.
    """
    known = {"prompt": sample.prompt.text, "answer": sample.text, "kind": kind, "finished": sample.finished}
    return {**known, **more}


def defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that are not None."""
    return {name: value for name, value in metrics.items() if value is not None}
