"""Evaluation: one way of measuring a policy."""

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from alignlab.data.source import DataSource, Need
from alignlab.policy import Policy, Progress, Sampling


@dataclass(frozen=True)
class EvaluationResult:
    """What one evaluation found.

    Args:
        metrics: finite numbers by name. What is undefined (a share of nothing) is left out, not set to 0.
        samples: the answers behind them; each has `prompt`, `answer`, `kind`, `finished`, and numbers of its own.
    """

    metrics: Mapping[str, float]
    samples: Sequence[Mapping[str, object]] = ()


class Evaluation(abc.ABC):
    """Measures a policy; the same policy, sampling and seed give the same numbers.

    Raise `VERSION` when the same arguments come to measure something else: it is part of the stage's fingerprint.
    """

    VERSION: ClassVar[str]

    def data_needs(self) -> Sequence[tuple[DataSource, Need]]:
        """Records that the evaluation reads."""
        return ()

    @abc.abstractmethod
    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Measure.

        Args:
            policy: base, instruct or aligned: all are asked the same.
            sampling: how it answers.
            seed: of the sampling.
            progress: told (answers sampled, answers in all).
        """


def share(flags: Iterable[bool | int | float]) -> float | None:
    """The mean of some flags or numbers; none of none."""
    values = list(flags)
    return sum(values) / len(values) if values else None


def defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that are a mean of something."""
    return {name: float(value) for name, value in metrics.items() if value is not None}
