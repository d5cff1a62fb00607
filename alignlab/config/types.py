"""Types of arguments: whether a value of a configuration fits one, and how a message names it."""

import functools
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.config.locate import is_target
from alignlab.config.signature import members


def parts_type(value: Any, hint: Any) -> Any:
    """The type of a container's parts, where they are to be checked one at a time; None where they are not."""
    container = Mapping if isinstance(value, Mapping) else Sequence if isinstance(value, list) else None
    if container is None:
        return None
    if (found := _values_of(hint, container)) is not None:
        return found
    return Any if _holds_target(value) and not misfit(value, hint) else None


def _holds_target(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return is_target(value) or any(_holds_target(part) for part in parts)


def classes(hint: Any) -> tuple[type[Any], ...]:
    """The classes an object may be of; empty where any class is allowed."""
    origins = [typing.get_origin(m) or m for m in members(hint)]
    if any(m is Any or m is object or isinstance(m, typing.TypeVar) for m in origins):
        return ()
    return tuple(m for m in origins if isinstance(m, type) and m is not type(None))


def _values_of(hint: Any, container: type[Any]) -> Any:
    """The type of a container's values where the hint is (or may be) such a container; None where it is not."""
    for member in members(hint):
        origin = typing.get_origin(member) or member
        if isinstance(origin, type) and issubclass(origin, container) and origin is not str:
            arguments = [a for a in typing.get_args(member) if a is not Ellipsis]
            fixed = container is Sequence and origin is tuple and Ellipsis not in typing.get_args(member)
            return None if fixed else (arguments[-1] if arguments else Any)
    return None


def misfit(value: Any, hint: Any) -> str:
    """The types that would fit (`an int or null`) where the value does not; empty where it does."""
    from pydantic import ValidationError

    choices = members(hint)
    if any(c is Any or c is object for c in choices):
        return ""
    text = json.dumps(value)
    for member in choices:
        adapter = None if _is_our_class(member) else _adapter(member)
        if adapter is None:
            continue  # only an object fits, and this is not one
        try:
            adapter.validate_json(text, strict=True)
        except ValidationError:
            continue
        return ""
    return " or ".join(name_of(m) for m in choices)


@functools.cache
def _adapter(hint: Any) -> Any:
    """The validator of a type; None where pydantic does not know it."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        return TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _is_our_class(member: Any) -> bool:
    """A class whose objects come by `_target_` only; pydantic would also make a dataclass out of a mapping."""
    origin = typing.get_origin(member) or member
    return isinstance(origin, type) and origin.__module__.partition(".")[0] not in ("builtins", "typing", "collections")


def name_of(hint: Any) -> str:
    if hint is type(None):
        return "null"
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(repr(v) for v in typing.get_args(hint))
    if origin is not None and not _is_our_class(hint):
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
