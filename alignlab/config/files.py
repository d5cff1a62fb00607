"""Files of options, checked before a library reads them: one may be damaged, or made to keep the machine busy.

Ten lines of YAML can stand for ten billion values (an alias of aliases of aliases), and Hydra would make every one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult

from alignlab.config.internals import ConfigRepository, FileConfigSource
from alignlab.config.plugins import CORE, installed
from alignlab.errors import ConfigError

LARGEST: Final = 2**22
"""Bytes of a file of options."""
MOST_NODES: Final = 200_000
"""Values, keys and lists that a file may stand for, with every alias written out."""
_ELSEWHERE: Final = "outside of the folders of options, and is not read; copy it into the one that names it"
_ALIAS: Final = re.compile(r"(?:^|[\s\[{,:-])\*\w", re.MULTILINE)


class Repository(ConfigRepository):
    """Hydra's repository, which reads checked files only."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.sources = [_Checked(s.provider, s.path) if s.scheme() == "file" else s for s in self.sources]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A file of options by its name, `objective/dpo`.

        Raises:
            ConfigError: the name leads out of every folder of options.
        """
        if config_path.startswith("/") or ".." in config_path.split("/"):
            raise ConfigError(f"defaults: {config_path} is a file {_ELSEWHERE}")
        return super().load_config(config_path)


class _Checked(FileConfigSource):
    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path) / self._normalize_file_name(config_path)
        self._check_link(file)
        check_text(file, self.provider)
        try:
            return super().load_config(config_path)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(not_yaml(file, self.provider, error)) from error

    def _check_link(self, file: Path) -> None:
        """Refuse a link out of a folder that is not installed; a package may be installed as links."""
        if self.provider in (CORE, *(plugin.package for plugin in installed())):
            return
        if not file.resolve().is_relative_to(Path(self.path).resolve()):
            raise ConfigError(f"{file} ({self.provider}) is a link to {file.resolve()}, {_ELSEWHERE}")


def check_text(file: Path, owner: str) -> str:
    """The text of a file of options.

    Args:
        file: of YAML.
        owner: package that ships it, for messages.

    Raises:
        ConfigError: it is too large, not UTF-8, or stands for too many values.
    """
    if (size := file.stat().st_size) > LARGEST:
        raise ConfigError(f"{file} ({owner}) has {size} bytes; a file of options has at most {LARGEST}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} ({owner}) is not UTF-8 ({error.reason}); save it as UTF-8") from error
    if _ALIAS.search(text):
        _check_aliases(file, owner, text)
    return text


def _check_aliases(file: Path, owner: str, text: str) -> None:
    try:
        root = yaml.compose(text, yaml.SafeLoader)  # aliases are one node here, however often they are written
        count = _nodes(root)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(not_yaml(file, owner, error)) from error
    if count > MOST_NODES:
        raise ConfigError(
            f"{file} ({owner}) stands for more than {MOST_NODES} values, since its aliases (*) name aliases; write "
            f"out what is meant"
        )


def _nodes(root: Any) -> int:
    """Nodes below a node, each alias counted as everything that it names."""
    counts: dict[int, int] = {}

    def count(node: Any) -> int:
        if id(node) not in counts:
            counts[id(node)] = MOST_NODES  # where it names itself
            counts[id(node)] = 1 + sum(count(child) for child in _children(node))
        return counts[id(node)]

    return 0 if root is None else count(root)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def not_yaml(file: Path, owner: str, error: Exception) -> str:
    """The message on a file that YAML cannot be read from."""
    if isinstance(error, RecursionError):
        return f"{file} ({owner}) is nested too deeply; write it flatter"
    return f"{file} ({owner}) is not YAML: {' '.join(str(error).split())}"
