"""What makes a stage's artifact what it is, as plain JSON: the input of its fingerprint.

A stage is identified by its class, the `VERSION` of every class below it that states one, its arguments with the
defaults filled in (so that writing a default out changes nothing, and changing one in the code does), less those that
`NOT_IDENTITY` lists, the fingerprints of its inputs and the digest of what its data reads from outside. Paths, logger,
device and worker counts never enter. A change of code that changes results is an explicit change of a `VERSION`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from alignlab.config.build import TARGET, Builder, locate
from alignlab.config.signature import coerce, defaults, hints
from alignlab.errors import ConfigError


def identity(node: Mapping[str, Any], path: str, builder: Builder) -> dict[str, Any]:
    """Identity of a node that holds `_target_`.

    Args:
        node: plain configuration.
        path: where it stands, for messages.
        builder: builds the data sources whose content is digested.
    """
    cls = locate(node[TARGET], path)
    types_of = hints(cls)
    given = {k: coerce(v, types_of.get(k, Any)) for k, v in node.items() if k != TARGET}
    found = _describe(cls, {**defaults(cls), **given}, path, builder)
    if hasattr(cls, "content_digest"):
        found["content"] = builder.build(node, path).content_digest()
    return found


def _describe(cls: type[Any], arguments: Mapping[str, Any], path: str, builder: Builder) -> dict[str, Any]:
    found: dict[str, Any] = {k: _value(v, f"{path}.{k}", builder) for k, v in arguments.items()}
    for left_out in getattr(cls, "NOT_IDENTITY", ()):
        _drop(found, left_out)
    found["class"] = f"{cls.__module__}.{cls.__qualname__}"
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
    if isinstance(value, Mapping):
        if TARGET in value:
            return identity(value, path, builder)
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
