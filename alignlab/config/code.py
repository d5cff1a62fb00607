"""Digest of the code of a class, so that changed code is never answered with results of the old code.

The digest covers the syntax tree of the class and of everything that it refers to by name: functions, classes and
constants, base classes included, as far as they are defined in the same plugin, or for alignlab's own classes in the
same folder of alignlab. Comments, docstrings and layout change nothing, nor does moving a definition to another module
of the package. Not covered: other packages and other folders of alignlab (a kernel, a contract), names that are looked
up while the program runs, and files that the code reads. For those, raise the `VERSION` of the class, or run the stage
again with `rerun=STAGE`.
"""

import ast
import hashlib
import importlib.util
import sys
import types
import weakref
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.config.plugins import CORE, installed
from alignlab.config.signature import per_class


@per_class
def code_digest(cls: type[Any]) -> str:
    """Digest of the code of a class; empty where it is neither alignlab's nor a plugin's, or has no source."""
    packages = {CORE, *(p.package for p in installed())}
    _remember({package.partition(".")[0] for package in packages})
    own = [base for base in cls.__mro__ if any(_within(base.__module__, package) for package in packages)]
    texts = [text for base in own if "<locals>" not in base.__qualname__ for text in sorted(_slice(base))]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest() if texts else ""


def _slice(cls: type[Any]) -> set[str]:
    """The definitions that a class is made of, as texts."""
    scope = _scope(cls.__module__)
    todo, done, found = [(cls.__module__, cls.__qualname__.partition(".")[0])], set[tuple[str, str]](), set[str]()
    while todo:
        place = todo.pop()
        if place in done or (module := _module(place[0])) is None:
            continue
        done.add(place)
        found.update(module.loose)
        for definition in module.definitions.get(place[1], ()):
            found.add(definition.text)
            for name in definition.names:
                todo += _referred(module, name, scope, found)
        if place[1] in module.imports:  # handed on, as in a package's __init__
            todo += _referred(module, place[1], scope, found)
    return found


def _referred(module: "_Module", name: str, scope: str, found: set[str]) -> Iterator[tuple[str, str]]:
    """The places that a name used in a module stands for; what lies outside the scope is noted by its name."""
    if name in module.definitions:
        yield module.name, name
        return
    if name not in module.imports:
        return
    home, original = module.imports[name]
    if not _within(home, scope):
        found.add(f"{name}={home}.{original}")
    elif original and (f"{home}.{original}" in sys.modules or _module(home) is None):
        yield from _all_of(f"{home}.{original}")
    elif original:
        yield home, original
    else:
        yield from _all_of(home)


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _all_of(name: str) -> Iterator[tuple[str, str]]:
    """Everything that a module defines, where it is used as a whole."""
    module = _module(name)
    yield from ((name, definition) for definition in (module.definitions if module else ()))


def _scope(module: str) -> str:
    """The package within which references are followed: a plugin, or a folder (or single module) of alignlab."""
    for plugin in installed():
        if _within(module, plugin.package):
            return plugin.package
    return ".".join(module.split(".")[:2])


# ---- modules ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Definition:
    """A top-level definition: its syntax tree as text, and the names that it uses."""

    text: str
    names: frozenset[str]


@dataclass
class _Module:
    """A module's source, taken apart."""

    name: str
    definitions: dict[str, list[_Definition]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)
    """Statements that define nothing by name (a loop, a registration): they may change anything."""


_modules: dict[tuple[str, str], _Module] = {}
_sources: weakref.WeakKeyDictionary[types.ModuleType, str] = weakref.WeakKeyDictionary()
"""Source of each module soon after it was imported. A process may run for hours; what somebody writes into the file
meanwhile is not what it computes with."""


def _remember(packages: Container[str]) -> None:
    """Keep the sources of modules that were imported since the last call."""
    loaded = [(name, module) for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages]
    for name, module in loaded:
        is_new = isinstance(module, types.ModuleType) and module not in _sources
        if is_new and (file := _source_file(name)) is not None:
            _sources[module] = file.read_text(encoding="utf-8")


def _module(name: str) -> _Module | None:
    """A module's parts; None where it has no source."""
    file, loaded = _source_file(name), sys.modules.get(name)
    if file is None:
        return None
    text = _sources.get(loaded) if loaded is not None else None
    if text is None:
        text = file.read_text(encoding="utf-8")
    key = (str(file), text)
    if key not in _modules:
        _modules[key] = _parse(name, text, is_package=file.name == "__init__.py")
    return _modules[key]


def _source_file(name: str) -> Path | None:
    """The file of a module's source, where it has one."""
    file = _file(name)
    return file if file is not None and file.suffix == ".py" and file.is_file() else None


def _file(name: str) -> Path | None:
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        loaded = spec.origin if spec is not None else None
    return None if loaded is None else Path(loaded)


def _parse(name: str, text: str, is_package: bool) -> _Module:
    module = _Module(name)
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.imports.update(_imports(node, name, is_package))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif names := _defined(node):
            definition = _definition(node)
            for defined in names:
                module.definitions.setdefault(defined, []).append(definition)
        elif not _is_docstring(node):
            module.loose.add(_text(node))
    return module


def _imports(node: ast.Import | ast.ImportFrom, name: str, is_package: bool) -> Iterator[tuple[str, tuple[str, str]]]:
    """Local name of each import, with the module and the name in it (empty for the module itself)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield alias.asname or top, (alias.name if alias.asname else top, "")
        return
    above = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
    home = ".".join([*above, *([node.module] if node.module else [])])
    for alias in node.names:
        yield alias.asname or alias.name, (home, alias.name)


def _defined(node: ast.stmt) -> list[str]:
    """Names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _definition(node: ast.stmt) -> _Definition:
    return _Definition(_text(node), frozenset(_used(node)))


def _used(node: ast.AST) -> Iterator[str]:
    """Names that are evaluated when the code runs; those in the annotations of a function are left out."""
    if isinstance(node, ast.Name):
        yield node.id
    for name, value in ast.iter_fields(node):
        if not (name == "returns" or (name == "annotation" and isinstance(node, ast.arg))):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    yield from _used(part)


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _text(node: Any) -> str:
    """A syntax tree as text without docstrings, positions and empty fields, the same in every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(_text(n) for n in node if not _is_docstring(n))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "type_comment", "kind"))
    return f"{type(node).__name__}({','.join(f'{n}={_text(v)}' for n, v in parts if v is not None and v != [])})"
