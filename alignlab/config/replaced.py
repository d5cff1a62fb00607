"""When an option is replaced, settings that were made for the old option are dropped.

`experiment=lifecycle` sets `pipeline.dpo.objective.beta`, for DPO. Hydra merges that over whatever option is selected
there: over IPO, which takes no beta, or over a plugin's objective, whose beta may mean something else. So each file's
settings below a selected option are kept only if the file sees the same option there: the one that the file itself, or
a file that it includes, selects. It makes no difference whether the option was replaced on the command line or by
`override` in an experiment's defaults list.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hydra.core.default_element import GroupDefault, ResultDefault
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

Tree: TypeAlias = Any
"""OmegaConf's DictConfig, under a name that run-time type checkers accept (its bases are of old `typing`)."""


@dataclass
class File:
    """A file of the defaults list.

    Args:
        path: Hydra's: `experiment/lifecycle`.
        package: where its content goes; empty at the top.
        parent: path of the file that includes it.
        selects: options of the places that its defaults list mounts.
        overrides: options of places that are mounted elsewhere.
    """

    path: str
    package: str
    parent: str | None
    selects: dict[str, str | None] = field(default_factory=dict)
    overrides: dict[str, str | None] = field(default_factory=dict)


class Replaced:
    """Settings to drop and slots to rename in one composition.

    Args:
        defaults: Hydra's final defaults list.
        repo: Hydra's repository, which loads a file by its path.
        chosen: options that the command line selects, by Hydra's key.
        added: keys of `chosen` for places where nothing was selected.
    """

    def __init__(
        self, defaults: Sequence[ResultDefault], repo: Any, chosen: Mapping[str, str], added: Sequence[str] = ()
    ) -> None:
        self.files = _files(defaults, repo)
        self.added = set(added)
        self.final = self._final(chosen)

    def _final(self, chosen: Mapping[str, str]) -> dict[str, str | None]:
        """The selected option of each place: the command line's, else the outermost override, else as mounted."""
        final: dict[str, str | None] = {}
        for file in self._outermost_first():
            for key, option in file.overrides.items():
                final.setdefault(key, option)
        for file in self.files:
            for key, option in file.selects.items():
                final.setdefault(key, option)
        return {**final, **chosen}

    def _outermost_first(self) -> list[File]:
        parents = {f.path: f.parent for f in self.files}

        def depth(file: File) -> int:
            count, step = 0, file.parent
            while step is not None and step in parents and count < len(parents):
                count, step = count + 1, parents[step]
            return count

        later_first = list(reversed(self.files))
        return sorted(later_first, key=depth)

    def _seen_by(self, file: File) -> dict[str, str | None]:
        """The option of each place as a file sees it: with the overrides of itself and of the files it includes."""
        inside = [file]
        for other in self._outermost_first():
            if any(other.parent == f.path and _within(other.package, f.package) for f in inside):
                inside.append(other)
        seen: dict[str, str | None] = {}
        for other in inside:
            for key, option in other.overrides.items():
                seen.setdefault(key, option)
        for other in inside:
            for key, option in other.selects.items():
                seen.setdefault(key, option)
        return seen

    def prune(self, default: ResultDefault, content: Tree) -> Tree:
        """A file's content, placed in the whole configuration, without settings for options that were replaced."""
        package = default.package or ""
        file = next((f for f in self.files if (f.path, f.package) == (default.config_path, package)), None)
        if file is None or not isinstance(content, DictConfig):
            return content
        dropped = [package_of(k) for k, option in self._seen_by(file).items() if self.final.get(k, option) != option]
        dropped += [package_of(key) for key in self.added if _is_object(content, package_of(key))]
        below = [p for p in dropped if p != package and _within(p, package)]
        present = [p for p in below if _select(content, p) is not None]
        if not present:
            return content
        pruned = copy.deepcopy(content)
        for gone in present:
            if _select(pruned, gone) is not None:
                _remove(pruned, gone)
        return pruned

    def renames(self) -> dict[str, str]:
        """New name of each slot that was named after its option and has another one now, by package.

        Stages keep their names: other stages refer to them.
        """
        found = {}
        for key, option in {k: v for f in self.files for k, v in f.selects.items()}.items():
            package, final = package_of(key), self.final.get(key)
            named = package.rpartition(".")[2] == option and "@" in key and not key.startswith("stage@")
            if named and final is not None and final != option:
                found[package] = final
        return found


def rename(cfg: Tree, renames: Mapping[str, str]) -> None:
    """Rename slots in place, each where it is; what was set under the new name already is merged over it."""
    for package, name in renames.items():
        home, _, old = package.rpartition(".")
        parent = OmegaConf.select(cfg, home)
        if parent is None or old not in parent or _is_object(parent, name):
            continue
        with read_write(cfg), open_dict(cfg):
            content = {key: parent._get_node(key) for key in parent}
            if name in content:
                content[old] = OmegaConf.merge(content[old], content.pop(name))
            for key in list(parent):
                del parent[key]
            for key, node in content.items():
                parent[name if key == old else key] = node


def package_of(key: str) -> str:
    """`pipeline.dpo.objective` for `objective@pipeline.dpo.objective`, `data` for `data`."""
    group, _, package = key.partition("@")
    return package or group.replace("/", ".")


def _files(defaults: Sequence[ResultDefault], repo: Any) -> list[File]:
    """The files of the defaults list, Hydra's own left out, with the selections in each."""
    found: dict[tuple[str, str], File] = {}
    for default in defaults:
        path = default.config_path or ""
        if not path.startswith("hydra/"):
            file = File(path, default.package or "", default.parent)
            found.setdefault((file.path, file.package), file)
    for file in found.values():
        for entry in _entries(file, repo):
            into = file.overrides if entry.override else file.selects
            into[entry.get_override_key()] = entry.value if isinstance(entry.value, str) else None
    return list(found.values())


def _entries(file: File, repo: Any) -> Iterator[GroupDefault]:
    """The selections of a file's own defaults list."""
    loaded = repo.load_config(config_path=file.path)
    for entry in (loaded.defaults_list or ()) if loaded is not None else ():
        if isinstance(entry, GroupDefault):
            mounted = copy.deepcopy(entry)
            mounted.parent_base_dir = mounted.parent_package = None
            mounted.update_parent(file.path.rpartition("/")[0], file.package)
            yield mounted


def _within(package: str, other: str) -> bool:
    return not other or package == other or package.startswith(f"{other}.")


def _select(content: Tree, package: str) -> Any:
    node: Any = content
    for key in package.split("."):
        if not isinstance(node, DictConfig) or key not in node or OmegaConf.is_interpolation(node, key):
            return None
        node = node._get_node(key)
    return node


def _is_object(content: Tree, package: str) -> bool:
    node = _select(content, package)
    return isinstance(node, DictConfig) and not node._is_none() and "_target_" in node


def _remove(content: Tree, package: str) -> None:
    home, _, last = package.rpartition(".")
    parent = _select(content, home) if home else content
    with read_write(parent), open_dict(parent):
        del parent[last]
