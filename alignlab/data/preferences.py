"""Preferences as JSON lines: how a labelling stage hands them to reward models and DPO.

A line of `preferences.jsonl` holds `prompt` (a list of messages), `chosen`, `rejected` and `split`; where there are
any, `facts` of the prompt and `notes` on the judgement (`Comparison.notes`: in them `probability` is that the *chosen*
answer is chosen); and whatever the stage logs with it (`source`, `index`, `rater`, ...).

Label logs each judgement as it was made: `first_preferred`, and with it `probability`, which is that the answer shown
*first* is preferred. Both are kept in the file as they are; in memory there is only the probability of the chosen one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from alignlab.artifact import PREFERENCES, Artifact, write_lines
from alignlab.data import conversations, judgement
from alignlab.data.records import Comparison, Facts, Prompt
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
        "prompt": messages(comparison.prompt),
        **({"facts": dict(comparison.prompt.facts)} if comparison.prompt.facts else {}),
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
    found = []
    for number, line in enumerate(artifact.lines(PREFERENCES), start=1):
        try:
            pair = _comparison(line, f"{PREFERENCES}:{number}")
            if split_of(line) == split:
                found.append(pair)
        except (KeyError, TypeError, ValueError) as error:
            where = f"{artifact.path / PREFERENCES}:{number}"
            raise DataError(f"{where}: a preference needs prompt, chosen, rejected and split ({error})") from error
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


# ---- shared with answers.jsonl ---------------------------------------------------------------------------------------
def messages(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt's turns as JSON."""
    return [{"role": m.role, "content": m.content} for m in prompt.messages]


def prompt_of(line: Mapping[str, Any]) -> Prompt:
    """The prompt of a line, with its facts.

    Raises:
        KeyError, TypeError, ValueError: it has none, or it is not a list of messages; facts are not texts.
    """
    facts = line.get("facts") or {}
    if not isinstance(facts, Mapping) or not all(isinstance(v, str) for v in facts.values()):
        raise TypeError("facts must be an object of texts")
    found: Facts = tuple((str(k), v) for k, v in facts.items())
    return Prompt(conversations.of_messages(line["prompt"]), found)


def split_of(line: Mapping[str, Any]) -> str:
    """The part that a line belongs to.

    Raises:
        KeyError, ValueError: there is none, or it is not one of the two.
    """
    if line["split"] not in get_args(Split):
        raise ValueError(f"split must be {' or '.join(get_args(Split))}, found {line['split']!r}")
    return str(line["split"])


def check_texts(line: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise `TypeError` where one of the fields is not a text, `KeyError` where it is missing."""
    if wrong := [name for name in names if not isinstance(line[name], str)]:
        raise TypeError(f"{' and '.join(wrong)} must be text")
