"""Check a final configuration against the constructors that it will be given to, before anything trains.

Hydra cannot: without hand-written schemas it composes a typo in a file silently, and with them `+key` still gets by.
So the check comes last, on the resolved configuration, and needs nothing of a plugin but its constructors' signatures.
Types are checked by pydantic in its strict mode, as JSON: a list may stand for a tuple, an int for a float, a string
for an int may not.
"""

import difflib
import json
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final

from alignlab.config.build import TARGET, is_target, locate
from alignlab.config.signature import hints, members, parameters, plain
from alignlab.errors import ConfigError, suggestion
from alignlab.sanitize import redact

SPECIAL: Final = ("_partial_", "_args_", "_recursive_", "_convert_")
"""Keys that mean something to `hydra.utils.instantiate`; we refuse them."""

Catalog = Mapping[str, Sequence[str]]


class Checker:
    """Collects what is wrong with a configuration.

    Args:
        catalog: options of each config group, for suggestions.
    """

    def __init__(self, catalog: Catalog | None = None) -> None:
        self.catalog = catalog or {}
        self.problems: list[str] = []

    def raise_problems(self) -> None:
        """Raise one error that lists what was found, each problem on a line."""
        if self.problems:
            raise ConfigError("\n".join(dict.fromkeys(self.problems)))

    # ---- objects --------------------------------------------------------------------------------------------------
    def object(self, node: Mapping[str, Any], raw: Any, path: str) -> type[Any] | None:
        """Check a node that holds `_target_`, and everything below it.

        Args:
            node: resolved.
            raw: the same node before interpolation: what is taken over whole from elsewhere is checked there.
            path: dotted.

        Returns:
            The class; None where that is what is wrong.
        """
        try:
            cls = locate(node[TARGET], path)
        except ConfigError as error:
            self.problems.append(str(error))
            return None
        if not isinstance(raw, str):
            self._arguments(cls, node, raw, path)
        return cls

    def _arguments(self, cls: type[Any], node: Mapping[str, Any], raw: Any, path: str) -> None:
        known, types_of = parameters(cls), hints(cls)
        for key, value in node.items():
            if key in SPECIAL:
                self.problems.append(f"{path}.{key}: alignlab does not take {key}; write the plain arguments")
            elif key != TARGET and key not in known:
                self.problems.append(_unknown(cls, key, list(known), path))
            elif key in types_of:
                self.value(value, raw.get(key), types_of[key], f"{path}.{key}", cls)
        for name, parameter in known.items():
            if parameter.default is parameter.empty and name not in node:
                self.problems.append(f"{path}.{name}: {cls.__name__} needs it; set {path}.{name}=...")

    # ---- values ---------------------------------------------------------------------------------------------------
    def value(self, value: Any, raw: Any, hint: Any, path: str, owner: type[Any]) -> None:
        """Check that a value fits the type that `owner` asks for."""
        hint = plain(hint)
        if self._known_bad(raw):
            return
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.append(f"{path}: {owner.__name__} takes a finite number, not {value}")
            return
        if is_target(value):
            made = self.object(value, raw, path)
            wanted = _classes(hint)
            if made is not None and wanted and not issubclass(made, wanted):
                names = " or ".join(_name(w) for w in wanted)
                self.problems.append(f"{path}: {owner.__name__} takes {names}, not {made.__name__}")
        elif isinstance(value, Mapping) and (inner := _values_of(hint, Mapping)) is not None:
            for key, part in value.items():
                self.value(part, child(raw, key), inner, f"{path}.{key}", owner)
        elif isinstance(value, list) and (inner := _values_of(hint, Sequence)) is not None:
            for i, part in enumerate(value):
                self.value(part, child(raw, i), inner, f"{path}[{i}]", owner)
        elif wanted_type := _misfit(value, hint):
            shown = _show(redact(value, path.rpartition(".")[2]))
            self.problems.append(
                f"{path}: {owner.__name__} takes {wanted_type}, not {shown}{self._options(path, value)}"
            )

    def _known_bad(self, raw: Any) -> bool:
        """Whether a value is taken over from a place whose problem is listed already."""
        return isinstance(raw, str) and any(raw == f"${{{problem.partition(':')[0]}}}" for problem in self.problems)

    def _options(self, path: str, value: Any) -> str:
        group = path.rpartition(".")[2]
        if group not in self.catalog:
            return ""
        names = self.catalog[group]
        meant = suggestion(value, names) if isinstance(value, str) else ""
        return f"; options of {group}: {', '.join(names)}{meant}"


def _unknown(cls: type[Any], key: str, known: list[str], path: str) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"{path}.{key}: {cls.__name__} takes {close[0]}, not {key}"
    return f"{path}.{key}: {cls.__name__} takes no {key}; it takes {', '.join(known) or 'nothing'}"


def child(raw: Any, key: Any) -> Any:
    """The part of the configuration before interpolation; a whole-node interpolation stands for all its parts."""
    return raw if isinstance(raw, str) or raw is None else raw[key]


def _classes(hint: Any) -> tuple[type[Any], ...]:
    """The classes an object may be of; empty where anything goes."""
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


def _misfit(value: Any, hint: Any) -> str:
    """What would fit (`an int or null`) where the value does not; empty where it does."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    choices = members(hint)
    if any(c is Any or c is object for c in choices):
        return ""
    for member in choices:
        try:
            TypeAdapter(member).validate_json(json.dumps(value), strict=True)
        except ValidationError:
            continue
        except (PydanticSchemaGenerationError, PydanticUserError):
            continue  # a class of ours: only an object fits, and this is none
        if not _is_our_class(member):
            return ""
    return " or ".join(_name(m) for m in choices)


def _is_our_class(member: Any) -> bool:
    """A class whose objects come by `_target_` only; pydantic would also make a dataclass out of a mapping."""
    origin = typing.get_origin(member) or member
    return isinstance(origin, type) and origin.__module__.partition(".")[0] not in ("builtins", "typing", "collections")


def _name(hint: Any) -> str:
    if hint is type(None):
        return "null"
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(repr(v) for v in typing.get_args(hint))
    if origin is not None and not _is_our_class(hint):
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _show(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
