"""Tasks: prompts with their instructions, and the files that hold them.

A file has one JSON object per line, in the layout of the public data: `prompt`, `instruction_id_list`, `kwargs` (the
arguments of each instruction, in the same order), and `response` where it was answered; other fields are kept.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.data.files.opening import lines_of, readable
from alignlab.errors import ConfigError, DataError
from alignlab.instructions.base import Instruction
from alignlab.instructions.kinds import instruction


@dataclass(frozen=True)
class Task:
    """A prompt with its instructions.

    Args:
        prompt: what is asked; the instructions are stated in it.
        instructions: what the response is checked for.
        fields: the line that it was read from.
    """

    prompt: str
    instructions: tuple[Instruction, ...]
    fields: Mapping[str, Any]

    @property
    def kinds(self) -> list[str]:
        """Ids of the instructions."""
        return [one.ID for one in self.instructions]

    @property
    def response(self) -> str:
        """The response of an answered task."""
        return str(self.fields["response"])


def read_tasks(path: Path, answered: bool = False) -> list[Task]:
    """The tasks of a file, all of them checked.

    Args:
        path: of JSON lines, which may be compressed (`.gz`).
        answered: whether each line must have a `response`.

    Raises:
        DataError: the file cannot be read, is empty, or a line is not a task; the message names file and line.
        ConfigError: an instruction needs a library that is not installed.
    """
    with readable(path):
        found = list(_tasks(path, answered))
    if not found:
        raise DataError(f"{path}: the file is empty; it holds no prompt")
    return found


def _tasks(path: Path, answered: bool) -> Iterator[Task]:
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            continue
        try:
            yield _task(json.loads(line), answered)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: broken JSON ({error}); each line must be one object") from error
        except RecursionError as error:
            raise DataError(f"{path}:{number}: JSON that is nested too deeply; each line must be one object") from error
        except ConfigError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error


def _task(line: Any, answered: bool) -> Task:
    if not isinstance(line, dict):
        raise DataError(f"a line must be a JSON object, found {type(line).__name__}")
    for name in ("prompt", "response") if answered else ("prompt",):
        if not isinstance(line.get(name), str):
            raise DataError(f"{name} must be a text, got {line.get(name)!r}" if name in line else f"lacks {name}")
    return Task(line["prompt"], tuple(_instructions(line)), line)


def _instructions(line: Mapping[str, Any]) -> Iterator[Instruction]:
    kinds, arguments = line.get("instruction_id_list"), line.get("kwargs")
    if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) for kind in kinds):
        raise DataError(f"instruction_id_list must be a list of ids that is not empty, got {kinds!r}")
    if not isinstance(arguments, list) or len(arguments) != len(kinds):
        raise DataError(f"kwargs must be a list of as many objects as there are ids ({len(kinds)}), got {arguments!r}")
    for kind, given in zip(kinds, arguments, strict=True):
        if given is not None and not isinstance(given, dict):
            raise DataError(f"{kind}: its kwargs must be an object, got {given!r}")
        yield instruction(kind, given)
