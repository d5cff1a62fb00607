"""Preferences as JSON lines: how a labelling stage hands them to reward models and DPO."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignlab.artifact import PREFERENCES, Artifact, write_lines
from alignlab.data import conversations
from alignlab.data.records import Comparison, Prompt
from alignlab.data.source import Split
from alignlab.errors import DataError


def row(comparison: Comparison, split: Split, **judgement: Any) -> dict[str, Any]:
    """One line of the file; `judgement` adds what is known of it (rater, probability, index, ...)."""
    prompt = [{"role": m.role, "content": m.content} for m in comparison.prompt.messages]
    return {
        "prompt": prompt,
        "chosen": comparison.chosen,
        "rejected": comparison.rejected,
        "split": split,
        **judgement,
    }


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `preferences.jsonl` into an artifact's folder."""
    write_lines(folder / PREFERENCES, rows)


def read(artifact: Artifact, split: Split) -> list[Comparison]:
    """The comparisons of one split.

    Raises:
        DataError: there are none, or a line lacks a field; the message names file and line.
    """
    found = []
    for number, line in enumerate(artifact.lines(PREFERENCES), start=1):
        where = f"{artifact.path / PREFERENCES}:{number}"
        try:
            messages = conversations.of_messages(line["prompt"])
            if not all(isinstance(line[side], str) for side in ("chosen", "rejected")):
                raise TypeError("chosen and rejected must be texts")
            if line["split"] == split:
                # The user's own file and line, where they are known.
                given = line.get("source") or f"{PREFERENCES}:{number}"
                found.append(Comparison(Prompt(messages), line["chosen"], line["rejected"], given))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: a preference needs prompt, chosen, rejected and split ({error})") from error
    if not found:
        raise DataError(
            f"{artifact.path / PREFERENCES} holds no {split} comparison; label more prompts, or set "
            f"data.validation_fraction above 0"
        )
    return found
