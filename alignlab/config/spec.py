"""A checked configuration: classes with their arguments, as a tree that can build, identify and describe itself.

`check` makes specs; every later use (the plan, the fingerprint, the builder, the run folder) starts from them, so that
a class is located once and a value is converted once.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignlab.config.code import code_digest
from alignlab.config.locate import TARGET, public_path
from alignlab.config.signature import defaults
from alignlab.errors import AlignlabError, ConfigError
from alignlab.sanitize import redact


@dataclass(frozen=True)
class Spec:
    """A class and the arguments of its constructor.

    Args:
        cls: what will be built.
        path: its place in the configuration, for messages.
        arguments: by name; nested objects are specs, and values have the types that the constructor asks for.
    """

    cls: type[Any]
    path: str = field(compare=False)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self, builder: "Builder | None" = None) -> Any:
        """The object.

        Raises:
            ConfigError: a constructor refused its arguments; the message has the path and the reason.
        """
        return (builder or Builder()).build(self)

    def identity(self, builder: "Builder | None" = None) -> dict[str, Any]:
        """Everything that decides what the object does, as plain JSON: the input of a fingerprint.

        It holds the public path of the class, its `VERSION` if it states one, and all arguments, with defaults filled
        in (writing a default out changes nothing), without those that `NOT_IDENTITY` lists (dotted for nested ones)
        and those of `IDENTITY_IF_SET` that are null. An object that reads data from outside identifies it by
        `content_digest() -> str`.

        Args:
            builder: builds the objects that have a `content_digest`.
        """
        builder = builder or Builder()
        found = _describe(self.cls, {**defaults(self.cls), **self.arguments}, self.path, builder)
        if hasattr(self.cls, "content_digest") and (content := builder.build(self).content_digest()):
            found["content"] = content
        return found

    def code(self) -> dict[str, str]:
        """Digest of the code of every class in the tree, by public path; see `alignlab.config.code`."""
        classes = {cls for spec in self.walk() for cls in (spec.cls, *spec._default_classes())}
        digests = {public_path(cls): code_digest(cls) for cls in classes}
        return {path: digest for path, digest in sorted(digests.items()) if digest}

    def _default_classes(self) -> set[type[Any]]:
        """Classes of the objects that stand in for arguments that are not given."""
        missing = [value for name, value in defaults(self.cls).items() if name not in self.arguments]
        return {type(v) for v in missing if dataclasses.is_dataclass(v) and not isinstance(v, type)}

    def plain(self) -> dict[str, Any]:
        """The configuration from which this spec could have been read: mappings, lists and scalars."""
        return {TARGET: public_path(self.cls), **{k: _plain(v) for k, v in self.arguments.items()}}

    def redacted(self) -> dict[str, Any]:
        """`plain`, without secrets."""
        found: dict[str, Any] = redact(self.plain())
        return found

    def walk(self) -> Iterator["Spec"]:
        """This spec and all specs below it."""
        yield self
        yield from _specs(self.arguments)


class Builder:
    """Builds specs.

    Args:
        shared: types whose equal specs become one object (data sources, so that a file is read once).
    """

    def __init__(self, shared: tuple[type[Any], ...] = ()) -> None:
        self._types = shared
        self._shared: dict[str, Any] = {}

    def shared(self) -> list[Any]:
        """The shared objects that were built so far."""
        return list(self._shared.values())

    def build(self, value: Any) -> Any:
        """A value in which every spec is replaced by its object.

        Raises:
            ConfigError: a constructor refused its arguments.
        """
        if isinstance(value, list | tuple):
            return type(value)(self.build(v) for v in value)
        if isinstance(value, Mapping):
            return {k: self.build(v) for k, v in value.items()}
        if not isinstance(value, Spec):
            return value
        if not issubclass(value.cls, self._types):
            return self._construct(value)
        key = json.dumps(value.plain(), sort_keys=True)
        if key not in self._shared:
            self._shared[key] = self._construct(value)
        return self._shared[key]

    def _construct(self, spec: Spec) -> Any:
        arguments = {name: self.build(value) for name, value in spec.arguments.items()}
        try:
            return spec.cls(**arguments)
        except AlignlabError:
            raise
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{spec.path}: {error}") from error


def _specs(value: Any) -> Iterator[Spec]:
    if isinstance(value, Spec):
        yield from value.walk()
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _specs(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _specs(part)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.plain()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


# ---- identity --------------------------------------------------------------------------------------------------------
def _describe(cls: type[Any], arguments: Mapping[str, Any], path: str, builder: Builder) -> dict[str, Any]:
    found: dict[str, Any] = {k: _value(v, f"{path}.{k}", builder) for k, v in arguments.items()}
    for left_out in getattr(cls, "NOT_IDENTITY", ()):
        _drop(found, left_out)
    for name in getattr(cls, "IDENTITY_IF_SET", ()):
        if found.get(name) is None:
            found.pop(name, None)
    found["class"] = public_path(cls)
    if hasattr(cls, "VERSION"):
        found["VERSION"] = cls.VERSION
    return found


def _drop(found: dict[str, Any], path: str) -> None:
    """Remove the dotted `path`, where it is there."""
    head, _, rest = path.partition(".")
    if not rest:
        found.pop(head, None)
    elif isinstance(found.get(head), dict):
        _drop(found[head], rest)


def _value(value: Any, path: str, builder: Builder) -> Any:
    if isinstance(value, Spec):
        return value.identity(builder)
    if isinstance(value, Mapping):
        return {str(k): _value(v, f"{path}.{k}", builder) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_value(v, f"{path}[{i}]", builder) for i, v in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted(_value(v, path, builder) for v in value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made_of = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return _describe(type(value), made_of, path, builder)
    raise ConfigError(f"{path}: its default {value!r} cannot be part of a fingerprint; use plain values")
