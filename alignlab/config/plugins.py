"""The installed plugins, found without importing them.

A plugin joins by one entry point in the group `alignlab.plugins`, which names its package; each YAML file below the
package's `conf/` is an option. Packages are found by their specification and read as text, so that `--help`, `plugins`
and tab completion answer at once. A plugin that cannot be used stops only what uses it: it is listed as broken, with
the reason.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alignlab import CONTRACT, __version__
from alignlab.errors import ConfigError

GROUP: Final = "alignlab.plugins"
CORE: Final = "alignlab"
CHANGES: Final = {
    1: (
        "an objective states `per` and `step_means` instead of units(), statistic() and `context`, and returns "
        "self.loss(batch, name=values); see docs/write-a-plugin.md"
    ),
}
"""For each older contract, the change that a plugin written for it has to make."""


@dataclass(frozen=True)
class Plugin:
    """An installed plugin.

    Args:
        name: of its entry point.
        package: the importable package.
        distribution: what was installed, as pip names it.
        version: of the distribution.
        folder: of the package.
    """

    name: str
    package: str
    distribution: str
    version: str
    folder: Path

    @property
    def conf(self) -> Path:
        """Its config groups; may not exist."""
        return self.folder / "conf"


@dataclass(frozen=True)
class Broken:
    """A plugin that is declared but cannot be used.

    Args:
        name: of its entry point.
        package: that the entry point names.
        reason: the whole message, which names plugin, package and distribution.
    """

    name: str
    package: str
    reason: str


def installed() -> list[Plugin]:
    """All plugins that can be used, sorted by name, each checked without importing it."""
    return list(_scan(tuple(sys.path))[0])


def broken() -> list[Broken]:
    """Plugins that are declared but cannot be found or read, or were written for another contract; sorted by name."""
    return list(_scan(tuple(sys.path))[1])


@functools.lru_cache(maxsize=8)
def _scan(_: tuple[str, ...]) -> tuple[tuple[Plugin, ...], tuple[Broken, ...]]:
    """Looked up once for each search path, because every `_target_` asks."""
    entries: dict[str, dict[str, importlib.metadata.EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        entries.setdefault(entry.name, {})[_owner(entry)] = entry
    good, bad = [], []
    for name in sorted(entries):
        try:
            good.append(_only(name, entries[name]))
        except ConfigError as error:
            bad += [Broken(name, entry.module, str(error)) for entry in entries[name].values()]
    return tuple(good), tuple(bad)


def _owner(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module


def _only(name: str, entries: dict[str, importlib.metadata.EntryPoint]) -> Plugin:
    if len(entries) > 1:
        raise ConfigError(
            f"plugin {name} is declared by {len(entries)} distributions: {', '.join(sorted(entries))}; uninstall all "
            f"but one, or give their entry points different names"
        )
    return _plugin(*entries.values())


def _plugin(entry: importlib.metadata.EntryPoint) -> Plugin:
    package = entry.module
    distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else (package, "unknown")
    who = f"plugin {entry.name} (package {package} of {distribution} {version})"
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{who} cannot be found: {error}; install it again or uninstall {distribution}") from error
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{who} cannot be found: its entry point names {package}, and there is no such package with an __init__.py;"
            f" correct the entry point, or install {distribution} again"
        )
    _check_contract(Path(spec.origin), who)
    return Plugin(entry.name, package, distribution, version, Path(spec.origin).parent)


def _check_contract(file: Path, who: str) -> None:
    try:
        stated = _literal(ast.parse(file.read_text(encoding="utf-8")), "CONTRACT")
    except (SyntaxError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{who} cannot be read: {error}") from error
    if stated is None:
        raise ConfigError(f"{who} states no contract; write CONTRACT = {CONTRACT} in {file}")
    if stated == CONTRACT:
        return
    older = isinstance(stated, int) and stated < CONTRACT
    what = f"; {CHANGES[stated]}" if older and stated in CHANGES else "; update the plugin" if older else ""
    raise ConfigError(
        f"{who} was written for contract {stated!r}, alignlab {__version__} has {CONTRACT}{what or '; update alignlab'}"
    )


def _literal(tree: ast.Module, name: str) -> object:
    """The literal that a module assigns to `name`; None where it does not."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets) and isinstance(node.value, ast.Constant):
            return node.value.value
    return None


# ---- what would go wrong at import -----------------------------------------------------------------------------------
def import_problem(plugin: Plugin) -> str:
    """The first module of a plugin that cannot be parsed or imports something that is not installed; empty if none.

    Nothing is imported, so errors that a module raises when it runs are not found.
    """
    for file in sorted(plugin.folder.rglob("*.py")):
        if "tests" in file.relative_to(plugin.folder).parts:
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            return f"{file} cannot be read: {error}"
        for name in _imported(tree.body):
            if not _importable(name):
                return f"{file} imports {name}, which is not installed"
    return ""


def _imported(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Top-level packages that a module imports unconditionally."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _importable(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
