"""What is installed: the plugins, and the options that they and the core offer.

A plugin joins by one entry point in the group `alignlab.plugins`, which names its package; each YAML below the
package's `conf/` is an option. Nothing is imported here: packages are found by their specification and read as text,
so that `--help`, `plugins` and tab completion answer at once.
"""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignlab import CONTRACT, __version__
from alignlab.errors import ConfigError

GROUP: Final = "alignlab.plugins"
CORE: Final = "alignlab"


@dataclass(frozen=True)
class Plugin:
    """An installed plugin.

    Args:
        name: of its entry point.
        package: the importable package.
        distribution: what was installed, as pip names it.
        version: of the distribution.
        folder: where the package lies.
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
class Option:
    """One YAML file of a config group.

    Args:
        group: `objective`, `stage`, ...; `hydra/job_logging` for nested ones.
        name: of the option, the file's stem.
        file: the YAML.
        package: who ships it.
    """

    group: str
    name: str
    file: Path
    package: str

    def read(self) -> dict[str, Any]:
        """Its content, interpolations and defaults list as they stand."""
        import yaml

        try:
            content = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.file} ({self.package}) is not YAML: {error}") from error
        return content if isinstance(content, dict) else {}

    def summary(self) -> str:
        """The first sentence at its head."""
        words: list[str] = []
        for line in self.file.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            if not line.startswith("# @package"):
                words.append(line.lstrip("# ").strip())
        return re.split(r"(?<!\bal\.)(?<=\.)\s+(?=[A-Z])", " ".join(words).strip())[0]


def core_conf() -> Path:
    """The core's config groups: inside the package once installed from a wheel, beside it in a source tree."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"{here} has no conf/config.yaml in it or beside it; install alignlab again")


def installed() -> list[Plugin]:
    """All plugins, sorted by name, each checked without importing it.

    Raises:
        ConfigError: a plugin cannot be found or read, or was written for another contract; it is named.
    """
    return list(_installed(tuple(sys.path)))


@functools.lru_cache(maxsize=8)
def _installed(_: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Looked up once for a search path: every `_target_` asks."""
    entries = {e.name: e for e in importlib.metadata.entry_points(group=GROUP)}
    return tuple(_plugin(entries[name]) for name in sorted(entries))


def _plugin(entry: importlib.metadata.EntryPoint) -> Plugin:
    package = entry.module
    distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else (package, "unknown")
    who = f"plugin {entry.name} (package {package} of {distribution} {version})"
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{who} cannot be found: {error}; install it again or uninstall {distribution}") from error
    if spec is None or spec.origin is None:
        raise ConfigError(f"{who} has no importable __init__.py; install it again or uninstall {distribution}")
    _check_contract(Path(spec.origin), who)
    return Plugin(entry.name, package, distribution, version, Path(spec.origin).parent)


def _check_contract(file: Path, who: str) -> None:
    try:
        stated = _literal(ast.parse(file.read_text(encoding="utf-8")), "CONTRACT")
    except (SyntaxError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{who} cannot be read: {error}") from error
    if stated is None:
        raise ConfigError(f"{who} states no contract; write CONTRACT = {CONTRACT} in {file}")
    if stated != CONTRACT:
        what = "update the plugin" if isinstance(stated, int) and stated < CONTRACT else "update alignlab"
        raise ConfigError(f"{who} was written for contract {stated!r}, alignlab {__version__} has {CONTRACT}; {what}")


def _literal(tree: ast.Module, name: str) -> object:
    """The literal that a module assigns to `name`; None where it does not."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets) and isinstance(node.value, ast.Constant):
            return node.value.value
    return None


def load_all() -> list[Plugin]:
    """Import every plugin.

    Raises:
        ConfigError: one fails to import; it is named, with the error.
    """
    plugins = installed()
    for plugin in plugins:
        try:
            importlib.import_module(plugin.package)
        except Exception as error:  # whatever its code raises: the user must learn which plugin it was
            raise ConfigError(
                f"plugin {plugin.name} (package {plugin.package} of {plugin.distribution} {plugin.version}) fails to "
                f"import: {type(error).__name__}: {error}; mend it or uninstall {plugin.distribution}"
            ) from error
    return plugins


def roots(extra: Sequence[Path] = ()) -> list[tuple[str, Path]]:
    """Package and folder of every set of config groups: the core's, the plugins', then `extra` ones."""
    found = [(CORE, core_conf()), *((p.package, p.conf) for p in installed())]
    return [(package, conf) for package, conf in [*found, *(("--config-dir", e) for e in extra)] if conf.is_dir()]


def options(extra: Sequence[Path] = ()) -> list[Option]:
    """Every option of every group, sorted by group and name.

    Raises:
        ConfigError: two packages ship the same option; Hydra would silently take the first.
    """
    seen: dict[tuple[str, str], Option] = {}
    for package, conf in roots(extra):
        for option in _options_of(package, conf):
            first = seen.setdefault((option.group, option.name), option)
            if first is not option:
                raise ConfigError(
                    f"{first.package} and {package} both ship {option.group}/{option.name}.yaml "
                    f"({first.file} and {option.file}); rename one or uninstall one of the two"
                )
    return [seen[key] for key in sorted(seen)]


def _options_of(package: str, conf: Path) -> Iterator[Option]:
    for file in sorted(conf.rglob("*.yaml")):
        group = file.parent.relative_to(conf).as_posix()
        if group != "." or package != CORE:
            yield Option("" if group == "." else group, file.stem, file, package)


def catalog(found: Sequence[Option]) -> dict[str, list[str]]:
    """Names of the options of each group."""
    groups: dict[str, list[str]] = {}
    for option in found:
        groups.setdefault(option.group, []).append(option.name)
    return groups
