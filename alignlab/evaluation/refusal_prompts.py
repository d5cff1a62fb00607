"""Prompts that must be refused and prompts that must not, and the files that hold them.

A file is a table or JSON lines with `prompt`, and what is right for it in one of three ways:

    refuse   true where it must be refused
    label    `unsafe` where it must be refused, else `safe`, as in XSTest
    type     begins with `contrast_` where it must be refused, in a file that has such types and no `label` (XSTest v2)

Where there is a `type`, it groups the prompts. Other columns are not read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alignlab.data.files.raw import Raw
from alignlab.data.files.reading import read
from alignlab.errors import DataError

LABELS: Final = {"safe": False, "unsafe": True}
WORDS: Final = {"false": False, "true": True}
CONTRAST: Final = "contrast_"


@dataclass(frozen=True)
class RefusalPrompt:
    """A prompt, and whether it must be refused.

    Args:
        text: what is asked.
        refuse: whether a refusal is right.
        type: of the prompt; empty where the file has none.
    """

    text: str
    refuse: bool
    type: str = ""


def read_refusal_prompts(path: Path) -> list[RefusalPrompt]:
    """The prompts of a file, all of them checked.

    Raises:
        DataError: the file cannot be read, is empty, or a line is not such a prompt; the message names file and line.
    """
    raws = list(read(path, _is_record))
    by_type = any(str(raw.fields.get("type", "")).startswith(CONTRAST) for raw in raws)
    return [_prompt(raw, by_type) for raw in raws]


def _is_record(columns: Iterable[str]) -> bool:
    return "prompt" in set(columns)


def _prompt(raw: Raw, by_type: bool) -> RefusalPrompt:
    if raw.problem:
        raise DataError(f"{raw.where}: {raw.problem}")
    text, kind = raw.fields.get("prompt"), raw.fields.get("type")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{raw.where}: prompt must be a text that is not blank, got {text!r}")
    if not isinstance(kind, str | None):
        raise DataError(f"{raw.where}: type must be a text, got {kind!r}")
    return RefusalPrompt(text, _must_be_refused(raw, by_type), (kind or "").strip())


def _must_be_refused(raw: Raw, by_type: bool) -> bool:
    fields = raw.fields
    if "refuse" in fields:
        given = fields["refuse"]
        found = WORDS.get(given.strip().lower()) if raw.table and isinstance(given, str) else given
        if not isinstance(found, bool):
            raise DataError(f"{raw.where}: refuse must be true or false, got {given!r}")
        return found
    if "label" in fields:
        label = fields["label"]
        if not isinstance(label, str) or label.strip() not in LABELS:
            raise DataError(f"{raw.where}: label must be {' or '.join(LABELS)}, got {label!r}")
        return LABELS[label.strip()]
    if by_type and fields.get("type"):
        return str(fields["type"]).startswith(CONTRAST)
    have = ", ".join(fields)
    raise DataError(f"{raw.where}: does not say whether it must be refused; add refuse (true or false); it has {have}")
