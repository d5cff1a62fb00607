"""Find the class that a `_target_` names, and the public name of a class.

The configuration may come from a stranger, so `_target_` must be a *class* that alignlab or an installed plugin
defines. The check uses the module in which the resolved object was defined, because the spelling proves nothing
(`alignlab.artifact.json.JSONDecoder` is `json.JSONDecoder`).
"""

import importlib
import importlib.util
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from alignlab.config.plugins import CORE, broken, installed
from alignlab.config.signature import per_class
from alignlab.errors import ConfigError, suggestion

TARGET: Final = "_target_"
ALSO_ALLOWED: Final[frozenset[str]] = frozenset()
"""Packages, other than alignlab and the plugins, whose classes may be built: none so far."""


def is_target(node: object) -> bool:
    """Whether a configuration node stands for an object."""
    return isinstance(node, Mapping) and TARGET in node


def locate(target: object, path: str, also: Collection[str] = ALSO_ALLOWED) -> type[Any]:
    """Import the class that a `_target_` names.

    Args:
        target: dotted path, `alignlab_dpo.DPO`.
        path: its place in the configuration, for messages.
        also: packages whose classes may be built here in addition to alignlab's and the plugins'.

    Raises:
        ConfigError: the name is not found, is not a class, or is not a class that configuration may build.
    """
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{path}._target_: expected the dotted path of a class, got {target!r}")
    allowed = {CORE, *(p.package for p in installed()), *also}
    for plugin in broken():
        if _below(target, {plugin.package}) and plugin.package not in allowed:
            raise ConfigError(f"{path}._target_: {target} cannot be used: {plugin.reason}")
    if not _below(target, allowed):
        raise _refused(target, path, allowed)
    found = _resolve(target, path)
    if not isinstance(found, type):
        raise ConfigError(f"{path}._target_: {target} is not a class; only classes can be built from configuration")
    if not _below(found.__module__, allowed):
        raise _not_ours(target, path, found.__module__, allowed)
    return found


@per_class
def public_path(cls: type[Any]) -> str:
    """Shortest dotted path from which a class can be imported: `alignlab_dpo.DPO` for `alignlab_dpo.objective.DPO`.

    Fingerprints and manifests use it, so that moving a class inside its package invalidates nothing.
    """
    parts = cls.__module__.split(".")
    for cut in range(1, len(parts) + 1):
        package = ".".join(parts[:cut])
        found: Any = sys.modules.get(package)
        for name in cls.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _below(name: str, packages: set[str]) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def _refused(target: str, path: str, allowed: set[str]) -> ConfigError:
    root = target.partition(".")[0]
    spec = importlib.util.find_spec(root) if root else None
    if spec is None:
        return ConfigError(
            f"{path}._target_: {target} cannot be found: no package {root!r} is installed"
            f"{suggestion(root, sorted(allowed))}"
        )
    if spec.origin and _looks_like_a_plugin(Path(spec.origin)):
        return ConfigError(f"{path}._target_: {target} is refused: {how_to_declare(root)}")
    return _not_ours(target, path, target.rpartition(".")[0], allowed)


def _not_ours(target: str, path: str, home: str, allowed: set[str]) -> ConfigError:
    return ConfigError(
        f"{path}._target_: {target} is refused, because it is defined in {home!r}; configuration may only build "
        f"classes of {', '.join(sorted(allowed))} (any package can be made a plugin)"
    )


def _looks_like_a_plugin(init: Path) -> bool:
    if init.name != "__init__.py":
        return False
    return (init.parent / "conf").is_dir() or "CONTRACT" in init.read_text(encoding="utf-8", errors="replace")


def how_to_declare(package: str) -> str:
    """The rest of a message about a package that is not declared as a plugin."""
    return (
        f'the package {package} is not declared as a plugin; add [project.entry-points."alignlab.plugins"] '
        f'NAME = "{package}" to its pyproject.toml and install it again'
    )


def _resolve(target: str, path: str) -> object:
    """Import the longest prefix that is a module, then follow attributes."""
    parts = target.split(".")
    found: Any = None
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        found = _module(name, path)
        if found is not None:
            break
    for number, part in enumerate(parts[cut:], start=cut):
        if not hasattr(found, part):
            owner = ".".join(parts[:number])
            raise ConfigError(
                f"{path}._target_: there is no {target}; {owner} has no {part!r}{suggestion(part, _names(found))}"
            )
        found = getattr(found, part)
    return found


def _module(name: str, path: str) -> ModuleType | None:
    """The module of that name; None where there is none."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but imports something missing is broken, not absent.
        if error.name is not None and not (name == error.name or name.startswith(f"{error.name}.")):
            raise _import_error(name, path, error) from error
        return None
    except (Exception, SystemExit) as error:  # whatever a plugin's module raises
        raise _import_error(name, path, error) from error


def _import_error(name: str, path: str, error: BaseException) -> ConfigError:
    owner = next((p for p in installed() if _below(name, {p.package})), None)
    whose = f" (plugin {owner.name} of {owner.distribution} {owner.version})" if owner else ""
    what = f"{type(error).__name__}: {error}"
    return ConfigError(f"{path}._target_: importing {owner.package if owner else name}{whose} fails: {what}")


def _names(found: object) -> Sequence[str]:
    """Names that the user may have meant: attributes, and modules of a package."""
    folders = [Path(folder) for folder in getattr(found, "__path__", ())]
    modules = [f.stem for folder in folders for f in folder.glob("*.py") if f.stem != "__init__"]
    modules += [f.parent.name for folder in folders for f in folder.glob("*/__init__.py")]
    return [*(n for n in dir(found) if not n.startswith("_")), *modules]
