"""Answers as JSON lines: how a stage that samples, filters or distils hands demonstrations to fine-tuning.

A line of `answers.jsonl` holds `prompt` (a list of messages), `answer` and `split`; where there are any, `facts` of the
prompt and `scores` of the answer (rewards and the like, by name); and whatever the stage logs with it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignlab.artifact import ANSWERS, Artifact, write_lines
from alignlab.data import judgement
from alignlab.data.artifact_lines import check_texts, common, prompt_of, records
from alignlab.data.records import Example
from alignlab.data.source import Split
from alignlab.errors import DataError


def row(example: Example, split: Split, **logged: Any) -> dict[str, Any]:
    """One line of the file; `logged` holds further facts of the answer (`index`, `source`, ...)."""
    return {
        **common(example.prompt),
        "answer": example.answer,
        "split": split,
        **({"kind": example.kind} if example.kind else {}),
        **({"scores": dict(example.scores)} if example.scores else {}),
        **logged,
    }


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `answers.jsonl` into an artifact's folder."""
    write_lines(folder / ANSWERS, rows)


def read(artifact: Artifact, split: Split) -> list[Example]:
    """The answers of one split; none where the file has none of it.

    Raises:
        DataError: a line lacks a field, or the file holds no answer at all; the message names file and line.
    """
    found = list(records(artifact, ANSWERS, _example, "an answer needs prompt, answer and split"))
    if not found:
        raise DataError(f"{artifact.path / ANSWERS} holds no answer")
    return [example for part, example in found if part == split]


def _example(line: Mapping[str, Any], where: str) -> Example:
    check_texts(line, ("answer",))
    scores = judgement.numbers("scores", line.get("scores") or {})
    return Example(prompt_of(line), line["answer"], str(line.get("kind") or ""), line.get("source") or where, scores)
