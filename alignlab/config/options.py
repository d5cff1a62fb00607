"""The options of the config groups: one YAML file each, shipped by alignlab, by a plugin, or in a folder of the user's.

Nothing is imported here, so that `--help`, `plugins` and tab completion answer at once.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignlab.config.plugins import CORE, installed
from alignlab.errors import ConfigError

GLOBAL: Final = "# @package _global_\n"
"""First line of a file whose keys are those of the whole configuration."""
OWN: Final = "--config-dir"
"""Stands for the package of options in a folder of the user's."""


@dataclass(frozen=True)
class Option:
    """One YAML file of a config group.

    Args:
        group: `objective`, `stage`, ...; `hydra/job_logging` for nested ones.
        name: of the option, the file's stem.
        file: the YAML.
        package: that ships it.
    """

    group: str
    name: str
    file: Path
    package: str

    def text(self) -> str:
        """The file as it is.

        Raises:
            ConfigError: it is not UTF-8; file and package are named.
        """
        try:
            return self.file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{self.file} ({self.package}) is not UTF-8 ({error.reason}); save it as UTF-8"
            ) from error

    def read(self) -> dict[str, Any]:
        """Its content, with interpolations and defaults list unresolved."""
        import yaml

        try:
            content = yaml.safe_load(self.text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.file} ({self.package}) is not YAML: {error}") from error
        return content if isinstance(content, dict) else {}

    def summary(self) -> str:
        """The first sentence of the comment at the top of the file."""
        words: list[str] = []
        for line in self.text().splitlines():
            if not line.startswith("#"):
                break
            if not line.startswith("# @package"):
                words.append(line.lstrip("# ").strip())
        return re.split(r"(?<!\bal\.)(?<=\.)\s+(?=[A-Z])", " ".join(words).strip())[0]


def core_conf() -> Path:
    """The core's config groups: inside the package once installed from a wheel, next to it in a source tree."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "conf", here.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"{here} has no conf/config.yaml in it or next to it; install alignlab again")


def roots(extra: Sequence[Path] = ()) -> list[tuple[str, Path]]:
    """Package and folder of every set of config groups: the core's, the plugins', then `extra` ones."""
    found = [(CORE, core_conf()), *((p.package, p.conf) for p in installed())]
    return [(package, conf) for package, conf in [*found, *((OWN, e) for e in extra)] if conf.is_dir()]


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


def settings_groups() -> list[str]:
    """Groups of the core whose options make no object: they set keys all over the configuration."""
    files = sorted(core_conf().glob("*/*.yaml"))
    return list(dict.fromkeys(f.parent.name for f in files if f.read_text(encoding="utf-8").startswith(GLOBAL)))


def undeclared(group: str, name: str) -> str:
    """A package on the path that has this option but is not declared as a plugin; empty where there is none."""
    known = {p.package for p in installed()}
    for folder in (Path(entry) for entry in sys.path if entry):
        for file in folder.glob(f"*/conf/{group}/{name}.yaml"):
            package = file.relative_to(folder).parts[0]
            if package not in known and (folder / package / "__init__.py").is_file():
                return package
    return ""


def top_groups() -> list[str]:
    """Groups whose options are mounted at the top: those of the root's defaults list, and those of settings (scale)."""
    root = Option("", "config", core_conf() / "config.yaml", CORE).read()
    listed = [key for entry in root["defaults"] if isinstance(entry, dict) for key in entry if " " not in key]
    return [*listed, *(group for group in settings_groups() if group not in listed)]
