"""Refusal of what must be refused, and of what must not, on a file of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from alignlab.data.records import Prompt
from alignlab.digests import digest_of_file
from alignlab.evaluation.base import Evaluation, EvaluationResult, answer_row, check_name, defined, named, renamed
from alignlab.evaluation.preferences import subset_name
from alignlab.evaluation.refusal_judge import Verdict, judge
from alignlab.evaluation.refusal_prompts import RefusalPrompt, read_refusal_prompts
from alignlab.metrics import Column, Estimate
from alignlab.policy import Policy, Progress, Sample, Sampling, generate

SIDES: Final = {"unsafe": True, "safe": False}
"""Names of the two sides of a file, and whether prompts of that side must be refused."""
COUNTED: Final[dict[str, Verdict]] = {"refused": "refused", "partly_refused": "partly refused"}
"""Verdicts that are counted, by the beginning of their metrics' names."""
REFUSAL_COLUMNS: Final = (
    Column(
        "refused_unsafe", "prompts that must be refused and are, by rules on phrases", better=1, share=True,
        headline=True,
    ),
    Column(
        "refused_safe", "prompts that must not be refused and are (over-refusal), by rules on phrases", better=-1,
        share=True, headline=True,
    ),
    Column("partly_refused_unsafe", "prompts that must be refused and are in part: refused and answered", share=True),
    Column(
        "partly_refused_safe", "prompts that must not be refused and are in part: refused and answered", better=-1,
        share=True, headline=True,
    ),
    Column("refusal_empty", "answers without a letter or digit: neither refusal nor compliance", better=-1, share=True),
    Column("refusal_finished", "answers to the prompts of refusal that end by themselves", share=True),
)  # fmt: skip
"""Metrics of a file without types and under no name."""

_REFUSED: Final = {"unsafe": REFUSAL_COLUMNS[0].meaning, "safe": REFUSAL_COLUMNS[1].meaning}
Answered = tuple[RefusalPrompt, Sample, Verdict]
"""A prompt, its answer, and what the answer does."""


class RefusalReader(Evaluation):
    """Ask prompts that must be refused and prompts that must not, one answer each, and read by rules what was refused.

    `alignlab.evaluation.refusal_judge` has the rules. Every prompt counts, also where its answer is empty. A refusal in
    part does not count as one. A concrete class brings the prompts, and may add metrics of its own.

    Args:
        prompts: what is asked.
        system: put before every prompt as the system's message, as a guardrail is; empty for none.
        name: begins the name of every metric, so that one stage can measure with and without a system's message.
    """

    MORE: ClassVar[Sequence[Column]] = ()
    """Metrics of the class's own, which `more` measures; under no name."""

    def __init__(self, prompts: Sequence[RefusalPrompt], system: str, name: str) -> None:
        check_name(type(self).__name__, name)
        if system and not system.strip():
            raise ValueError(
                f"{type(self).__name__}: system is blank; write a system's message, or leave it empty for none"
            )
        self.system = system
        self.name = name
        self._prompts = prompts

    @property
    def columns(self) -> Sequence[Column]:
        """Those of all prompts, then refusals by type."""
        by_type = [
            Column(f"refused_{side}_{kind}", f"{_REFUSED[side]}; type {kind}", better=1 if refuse else -1, share=True)
            for side, refuse in SIDES.items()
            for kind in _types(self._prompts, refuse)
        ]
        return [renamed(column, self.name) for column in (*REFUSAL_COLUMNS, *self.MORE, *by_type)]

    def more(self, answers: Sequence[Sample]) -> dict[str, Estimate | None]:
        """Metrics of the class's own.

        Args:
            answers: one to each prompt, in their order.
        """
        return {}

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Answer every prompt once and read the answers."""
        asked = [Prompt.user(prompt.text, self.system) for prompt in self._prompts]
        samples = generate(policy, asked, sampling, seed, progress=progress)
        found = [(p, s, judge(s.text)) for p, s in zip(self._prompts, samples, strict=True)]
        measured = {**_measured(found), **self.more(samples)}
        metrics = {named(metric, self.name): value for metric, value in measured.items()}
        return EvaluationResult(defined(metrics), [_row(*each) for each in found])


class RefusalEvaluation(RefusalReader):
    """Refusal and over-refusal on a file of prompts; `alignlab.evaluation.refusal_prompts` has its layouts.

    Args:
        file: XSTest's CSV, or a table or JSON lines with `prompt` and `refuse`; it is read and checked at once.
        system: put before every prompt as the system's message, as a guardrail is; empty for none.
        name: begins the name of every metric, so that one stage can measure with and without a system's message.
        limit: at most so many prompts, the first ones; null takes all.

    Raises:
        DataError: the file cannot be used; the message names the line.

    Source: Röttger et al. 2023, arXiv:2308.01263.
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"file"})
    """Where the file lies does not matter; its content does, by `content_digest`."""

    def __init__(self, file: str, system: str = "", name: str = "", limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"RefusalEvaluation: limit must be >= 1 or null, got {limit}")
        super().__init__(read_refusal_prompts(Path(file))[:limit], system, name)
        self.file = file
        self.limit = limit

    def content_digest(self) -> str:
        """SHA-256 of the file."""
        return digest_of_file(Path(self.file))


def _measured(found: Sequence[Answered]) -> dict[str, Estimate | None]:
    metrics = {
        f"{begin}_{side}": _share([each for each in found if each[0].refuse == refuse], verdict)
        for begin, verdict in COUNTED.items()
        for side, refuse in SIDES.items()
    }
    by_type = {
        f"refused_{side}_{kind}": _share([each for each in found if _is_of(each[0], refuse, kind)], "refused")
        for side, refuse in SIDES.items()
        for kind in _types([prompt for prompt, _, _ in found], refuse)
    }
    finished = Estimate.share((prompt.text, sample.finished) for prompt, sample, _ in found)
    return {**metrics, "refusal_empty": _share(found, "empty"), "refusal_finished": finished, **by_type}


def _share(found: Sequence[Answered], verdict: Verdict) -> Estimate | None:
    """Share of a verdict, by the prompt without the system's message, so that it is paired with that of another."""
    return Estimate.share((prompt.text, own == verdict) for prompt, _, own in found)


def _types(prompts: Sequence[RefusalPrompt], refuse: bool) -> list[str]:
    """Types of one side, as metrics have them, in their order."""
    return list(dict.fromkeys(subset_name(p.type) for p in prompts if p.type and p.refuse == refuse))


def _is_of(prompt: RefusalPrompt, refuse: bool, kind: str) -> bool:
    return prompt.refuse == refuse and bool(prompt.type) and subset_name(prompt.type) == kind


def _row(prompt: RefusalPrompt, sample: Sample, verdict: Verdict) -> dict[str, object]:
    """The answer with its verdict; a refusal in part is neither good nor bad."""
    right: Verdict = "refused" if prompt.refuse else "complied"
    tone = "" if verdict == "partly refused" else "good" if verdict == right else "bad"
    side = "must be refused" if prompt.refuse else "must not be refused"
    return answer_row(sample, side, verdict=verdict, tone=tone, type=prompt.type)
