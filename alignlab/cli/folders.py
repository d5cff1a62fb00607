"""Folders of runs: those that a command was given, and where new ones are made."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf

from alignlab.config.replaced import Tree
from alignlab.errors import ConfigError
from alignlab.pipeline.run_folder import STATUS
from alignlab.pipeline.run_record import is_run

RUNS: Final = Path("runs")
"""Where runs are, unless `hydra.run.dir` says otherwise."""


def runs_of(given: Sequence[Path]) -> list[Path]:
    """Folders of the runs, each once, in the order given; those of a sweep by their paths.

    Raises:
        ConfigError: a folder is not there, or is neither a run's nor holds any.
    """
    found: dict[Path, None] = {}
    for folder in given:
        if not folder.is_dir():
            raise ConfigError(f"no such folder: {folder}; name the folder of a run or of a sweep")
        runs = list(below(folder.resolve()))
        if not runs:
            raise ConfigError(f"{folder} is not a run's folder and holds none: there is no {STATUS} in it or below it")
        found |= dict.fromkeys(runs)
    return list(found)


def below(folder: Path) -> Iterator[Path]:
    """The folder itself if it is a run's, else the runs below it; links and hidden folders are not entered."""
    if is_run(folder):
        yield folder
        return
    for child in sorted(folder.iterdir(), key=lambda f: (len(f.name), f.name) if f.name.isdigit() else (0, f.name)):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from below(child)


def is_named(node: Tree) -> bool:
    """Whether the user named the folder of a section (`hydra.run`, `hydra.sweep`); else it has the name of the time."""
    raw: Any = OmegaConf.to_container(node, resolve=False)
    return "${now:" not in str(raw["dir"])
