"""Parameters of a constructor: names, types and defaults, read from its signature."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def per_class(function: Callable[[type[Any]], T]) -> Callable[[type[Any]], T]:
    """Cache the results of a function of a class."""
    known: dict[type[Any], T] = {}

    @functools.wraps(function)
    def remembered(cls: type[Any]) -> T:
        if cls not in known:
            known[cls] = function(cls)
        return known[cls]

    return remembered


@per_class
def parameters(cls: type[Any]) -> Mapping[str, inspect.Parameter]:
    """Parameters that the constructor takes by name; where it passes `**more` on, the base classes' as well."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        own = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = [p for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found = {**{p.name: p for p in named}, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return found


@per_class
def hints(cls: type[Any]) -> Mapping[str, Any]:
    """Type of each parameter; those that are not stated or cannot be evaluated are left out."""
    found = {}
    for name, parameter in parameters(cls).items():
        hint = parameter.annotation
        if isinstance(hint, str):
            try:
                hint = typing.get_type_hints(cls.__init__).get(name, inspect.Parameter.empty)
            except NameError:
                continue
        if hint is not inspect.Parameter.empty:
            found[name] = plain(hint)
    return found


def defaults(cls: type[Any]) -> dict[str, Any]:
    """Value of each parameter that has a default."""
    found = {n: p.default for n, p in parameters(cls).items() if p.default is not p.empty}
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.name in found and field.default_factory is not dataclasses.MISSING:
                found[field.name] = field.default_factory()
    return found


def plain(hint: Any) -> Any:
    """The type below `Annotated`, `Final` and the like."""
    while typing.get_origin(hint) in (typing.Annotated, typing.Final):
        hint = typing.get_args(hint)[0]
    return hint


def members(hint: Any) -> list[Any]:
    """The members of a union; of any other type, itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [m for part in typing.get_args(hint) for m in members(plain(part))]
    return [hint]


def coerce(value: Any, hint: Any) -> Any:
    """A value as its type has it, where YAML cannot say so: a tuple for a list, a float for `1`."""
    choices = members(hint)
    origins = [typing.get_origin(m) or m for m in choices]
    if isinstance(value, list):
        inner = _value_types(choices, len(value))
        parts = [coerce(v, h) for v, h in zip(value, inner, strict=True)]
        return tuple(parts) if tuple in origins and list not in origins else parts
    if isinstance(value, int) and not isinstance(value, bool) and float in origins and int not in origins:
        return float(value)
    if isinstance(value, Mapping):
        inner = _value_types(choices, 1)
        return {k: coerce(v, inner[0]) for k, v in value.items()}
    return value


def _value_types(choices: list[Any], count: int) -> list[Any]:
    """The type of each of a container's `count` values, as far as it is stated."""
    for member in choices:
        arguments = [a for a in typing.get_args(member) if a is not Ellipsis]
        if typing.get_origin(member) is tuple and Ellipsis not in typing.get_args(member) and len(arguments) == count:
            return arguments
        if typing.get_origin(member) is not None and arguments:
            return [arguments[-1]] * count
    return [Any] * count
