"""Preferences as JSON lines: how a labelling stage hands them to reward models and DPO.

A line of `preferences.jsonl` holds `prompt` (a list of messages), `chosen`, `rejected` and `split`; where there are
any, `facts` of the prompt and `notes` on the judgement (`Comparison.notes`: in them `probability` is that the *chosen*
answer is chosen); and whatever the stage logs with it (`source`, `index`, `rater`, ...).

Label logs each judgement as it was made: `first_preferred`, and with it `probability`, which is that the answer shown
*first* is preferred. Both are kept in the file as they are; in memory there is only the probability of the chosen one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignlab.artifact import PREFERENCES, Artifact, write_lines
from alignlab.data import judgement
from alignlab.data.artifact_lines import check_texts, common, prompt_of, records
from alignlab.data.records import Comparison
from alignlab.data.source import Split
from alignlab.errors import DataError


def row(comparison: Comparison, split: Split, **logged: Any) -> dict[str, Any]:
    """One line of the file.

    Args:
        comparison: the pair; its notes are written as `notes`.
        split: which part it belongs to.
        logged: further facts of the judgement (rater, index, source, ...). `first_preferred` with `probability`
            is a judgement as it was made, and also becomes the note `probability`, converted.
    """
    notes = {**judgement.notes({k: logged.get(k) for k in ("probability", judgement.FIRST)}), **comparison.notes}
    return {
        **common(comparison.prompt),
        "chosen": comparison.chosen,
        "rejected": comparison.rejected,
        "split": split,
        **({"notes": notes} if notes else {}),
        **logged,
    }


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `preferences.jsonl` into an artifact's folder."""
    write_lines(folder / PREFERENCES, rows)


def read(artifact: Artifact, split: Split) -> list[Comparison]:
    """The comparisons of one split.

    Raises:
        DataError: there are none, or a line lacks a field; the message names file and line.
    """
    needs = "a preference needs prompt, chosen, rejected and split"
    found = [pair for part, pair in records(artifact, PREFERENCES, _comparison, needs) if part == split]
    if not found:
        raise DataError(
            f"{artifact.path / PREFERENCES} holds no {split} comparison; label more prompts, or set "
            f"data.validation_fraction above 0"
        )
    return found


def _comparison(line: Mapping[str, Any], where: str) -> Comparison:
    check_texts(line, ("chosen", "rejected"))
    notes = judgement.checked(line["notes"]) if "notes" in line else judgement.notes(line)
    # The user's own file and line, where they are known.
    source = line.get("source") or where
    return Comparison(prompt_of(line), line["chosen"], line["rejected"], source, notes)
