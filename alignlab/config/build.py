"""Build objects from plain configuration, and only from classes that are meant for it.

A mapping that holds `_target_` becomes an object of that class; its other keys are the constructor's arguments. The
configuration may come from a stranger, so `_target_` must be a *class* that alignlab or an installed plugin defines:
what counts is where the resolved object was defined, not how it was spelled (`alignlab.store.os.system` is
`os.system`). Hydra's other special keys (`_partial_`, `_args_`, `_recursive_`, `_convert_`) are refused: none is
needed, each would be a second way to say something.
"""

import importlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from alignlab.config.plugins import CORE, installed
from alignlab.config.signature import coerce, hints
from alignlab.data.source import DataSource
from alignlab.errors import AlignlabError, ConfigError

TARGET: Final = "_target_"
ALSO_ALLOWED: Final[frozenset[str]] = frozenset()
"""Modules beyond alignlab's and the plugins' whose classes may be built: none so far."""


def is_target(node: object) -> bool:
    """Whether a configuration node stands for an object."""
    return isinstance(node, Mapping) and TARGET in node


def locate(target: object, path: str, also: Collection[str] = ALSO_ALLOWED) -> type[Any]:
    """The class that a `_target_` names.

    Args:
        target: dotted path, `alignlab_dpo.DPO`.
        path: where it stands in the configuration, for messages.
        also: packages whose classes may be built here, beside alignlab's and the plugins'.

    Raises:
        ConfigError: it is not found, not a class, or not one that configuration may build.
    """
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{path}._target_: expected the dotted path of a class, got {target!r}")
    allowed = {CORE, *(p.package for p in installed()), *also}
    if not _below(target, allowed):
        raise _refused(target, path, target.rpartition(".")[0], allowed)
    found = _resolve(target, path)
    if not isinstance(found, type):
        raise ConfigError(f"{path}._target_: {target} is not a class; only classes can be built from configuration")
    if not _below(found.__module__, allowed):
        raise _refused(target, path, found.__module__, allowed)
    return found


def _below(name: str, packages: set[str]) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def _refused(target: str, path: str, home: str, allowed: set[str]) -> ConfigError:
    return ConfigError(
        f"{path}._target_: {target} is refused, as it is defined in {home!r}; configuration may only build classes of "
        f"{', '.join(sorted(allowed))} (a package joins the list as a plugin)"
    )


def _resolve(target: str, path: str) -> object:
    """Import the longest prefix that is a module, then walk attributes."""
    parts = target.split(".")
    found: Any = None
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A module that exists but imports something missing is broken, not absent.
            if error.name is not None and not (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigError(f"{path}._target_: importing {name} fails: {error}") from error
            continue
        except Exception as error:  # whatever a plugin's module raises: name it
            raise ConfigError(f"{path}._target_: importing {name} fails: {type(error).__name__}: {error}") from error
        break
    for part in parts[cut:]:
        if not hasattr(found, part):
            raise ConfigError(f"{path}._target_: there is no {target}; {name} has no {part!r}")
        found = getattr(found, part)
    return found


class Builder:
    """Builds objects; data sources that are configured alike are one object, so that files are read once."""

    def __init__(self) -> None:
        self._sources: dict[str, DataSource] = {}

    def notes(self) -> list[str]:
        """What the data sources built so far have to say of what they read."""
        return [note for source in self._sources.values() for note in source.notes()]

    def build(self, node: Any, path: str) -> Any:
        """The node with every `_target_` below it turned into an object.

        Args:
            node: plain configuration: mappings, lists, scalars.
            path: where it stands, for messages.

        Raises:
            ConfigError: a constructor refused its arguments; the message holds the path and its reason.
        """
        if isinstance(node, list):
            return [self.build(v, f"{path}[{i}]") for i, v in enumerate(node)]
        if not isinstance(node, Mapping):
            return node
        if TARGET not in node:
            return {k: self.build(v, f"{path}.{k}") for k, v in node.items()}
        cls = locate(node[TARGET], path)
        if not issubclass(cls, DataSource):
            return self._construct(cls, node, path)
        key = json.dumps(node, sort_keys=True)
        if key not in self._sources:
            self._sources[key] = self._construct(cls, node, path)
        return self._sources[key]

    def _construct(self, cls: type[Any], node: Mapping[str, Any], path: str) -> Any:
        types_of = hints(cls)
        arguments = {
            k: coerce(self.build(v, f"{path}.{k}"), types_of.get(k, Any)) for k, v in node.items() if k != TARGET
        }
        try:
            return cls(**arguments)
        except AlignlabError:
            raise
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: {error}") from error
