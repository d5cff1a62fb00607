"""Lines of `preferences.jsonl` and `answers.jsonl`: what both have in common."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from alignlab.artifact import Artifact
from alignlab.data import conversations
from alignlab.data.records import Facts, Prompt
from alignlab.data.source import Split
from alignlab.errors import DataError

T = TypeVar("T")


def records(
    artifact: Artifact, file: str, parse: Callable[[Mapping[str, Any], str], T], needs: str
) -> Iterator[tuple[str, T]]:
    """The split and the record of every line.

    Args:
        artifact: holds the file.
        file: its name.
        parse: makes a record of a line and its place ("answers.jsonl:3").
        needs: the fields of a line, for the message.

    Raises:
        DataError: a line lacks a field; the message names file and line.
    """
    for number, line in enumerate(artifact.lines(file), start=1):
        try:
            yield split_of(line), parse(line, f"{file}:{number}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{artifact.path / file}:{number}: {needs} ({error})") from error


def common(prompt: Prompt) -> dict[str, Any]:
    """The prompt's fields of a line."""
    return {"prompt": messages(prompt), **({"facts": dict(prompt.facts)} if prompt.facts else {})}


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
