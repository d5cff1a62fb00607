"""Instruction following that can be checked, on a file of prompts in the layout of IFEval."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from alignlab.data.records import Prompt
from alignlab.digests import digest_of_file
from alignlab.evaluation.base import Evaluation, EvaluationResult, answer_row, check_name, named, renamed
from alignlab.instructions import KINDS, Task, Verdicts, accuracies, read_tasks, verdicts
from alignlab.metrics import Column, Estimate
from alignlab.policy import Policy, Progress, Sample, Sampling, generate


def metric_of(kind: str) -> str:
    """Name of the metric of a kind: `followed_keywords_existence` of `keywords:existence`."""
    return f"followed_{kind.replace(':', '_')}"


INSTRUCTIONS_COLUMNS: Final = (
    Column("prompts_followed", "prompts of which every instruction is followed", better=1, share=True, headline=True),
    Column("prompts_followed_loosely", "the same of the best of eight readings of each answer", better=1, share=True),
    Column("instructions_followed", "instructions that are followed", better=1, share=True, headline=True),
    Column(
        "instructions_followed_loosely", "instructions that are followed in the best of eight readings of each answer",
        better=1, share=True,
    ),
    *(Column(metric_of(kind), f"instructions {kind} that are followed", better=1, share=True) for kind in KINDS),
    Column("instructions_finished", "answers to the prompts with instructions that end by themselves", share=True),
)  # fmt: skip


class TaskEvaluation(Evaluation):
    """Ask prompts whose instructions can be checked, one answer each, and check the answers.

    `alignlab.instructions` has the 25 kinds of instructions. A prompt that fills the model's context is an error. A
    concrete class brings the prompts.

    Args:
        tasks: what is asked.
        name: begins the name of every metric.
    """

    def __init__(self, tasks: Sequence[Task], name: str = "") -> None:
        check_name(type(self).__name__, name)
        self.name = name
        self._tasks = tasks

    @property
    def columns(self) -> Sequence[Column]:
        """Those of all prompts, and one per kind of instruction."""
        return [renamed(column, self.name) for column in INSTRUCTIONS_COLUMNS]

    def printed(self, answer: str) -> str:
        """An answer as it is checked."""
        return answer

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Answer every prompt once and check the answers."""
        prompts = [Prompt.user(task.prompt) for task in self._tasks]
        samples = generate(policy, prompts, sampling, seed, progress=progress)
        found = [
            verdicts(self.printed(s.text), task.instructions) for s, task in zip(samples, self._tasks, strict=True)
        ]
        rows = [_row(*both) for both in zip(samples, self._tasks, found, strict=True)]
        metrics = {**self._shares(found), **_finished(samples)}
        return EvaluationResult({named(metric, self.name): value for metric, value in metrics.items()}, rows)

    def _shares(self, found: Sequence[Verdicts]) -> dict[str, float]:
        by_name = accuracies(list(zip(self._tasks, found, strict=True)))
        prompts, instructions = by_name.pop("prompt"), by_name.pop("instruction")
        return {
            "prompts_followed": prompts.strict,
            "prompts_followed_loosely": prompts.loose,
            "instructions_followed": instructions.strict,
            "instructions_followed_loosely": instructions.loose,
            **{metric_of(kind): accuracy.strict for kind, accuracy in by_name.items()},
        }


class InstructionsEvaluation(TaskEvaluation):
    """Instruction following on a file of prompts; `alignlab score` gives the same verdicts on a file of answers.

    Args:
        file: JSON lines with `prompt`, `instruction_id_list` and `kwargs`; it is read and checked at once.
        limit: at most so many prompts, the first ones; null takes all.

    Raises:
        DataError: the file cannot be used; the message names the line.

    Source: Zhou et al. 2023, arXiv:2311.07911.
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"file"})
    """Where the file lies does not matter; its content does, by `content_digest`."""

    def __init__(self, file: str, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"InstructionsEvaluation: limit must be >= 1 or null, got {limit}")
        super().__init__(read_tasks(Path(file))[:limit])
        self.file = file
        self.limit = limit

    def content_digest(self) -> str:
        """SHA-256 of the file."""
        return digest_of_file(Path(self.file))


def _finished(samples: Sequence[Sample]) -> dict[str, float]:
    share = Estimate.share((s.prompt.text, s.finished) for s in samples)
    return {} if share is None else {"instructions_finished": share}


def _row(sample: Sample, task: Task, found: Verdicts) -> dict[str, object]:
    missed = [kind for kind, followed in zip(task.kinds, found.strict, strict=True) if not followed]
    verdict = f"not followed: {', '.join(missed)}" if missed else "all followed"
    tone = "bad" if missed else "good"
    kept = {"followed": len(task.kinds) - len(missed), "instructions": len(task.kinds)}
    return answer_row(sample, "instructions", verdict=verdict, tone=tone, **kept)
