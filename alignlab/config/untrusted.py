"""Configuration from a folder that is not installed: somebody else's experiment, which may hold anything.

Hydra builds its callbacks, launcher, sweeper and log handlers as soon as it has composed, before our own check of
`_target_` can see them: `hydra.callbacks.x._target_: os.system` in an experiment's file would be code that runs at
once. So where such a folder is used, Hydra's own section is composed and checked first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignlab.config import compose
from alignlab.config.build import TARGET, locate
from alignlab.errors import ConfigError

BUILT_BY: Final = {TARGET: ("hydra", "hydra_plugins"), "class": ("logging", "hydra")}
"""Keys of Hydra's section that name what is built, and the packages (beside ours) whose classes may be."""


def check(overrides: Sequence[str], folders: Sequence[Path], multirun: bool) -> None:
    """Check Hydra's section of every job, where a folder of options was given.

    Args:
        overrides: rewritten ones.
        folders: of options, that the command was given.
        multirun: whether it is a sweep.

    Raises:
        ConfigError: something other than a class of Hydra, alignlab or a plugin would be built.
    """
    if not folders and not any("hydra.searchpath" in o for o in overrides):
        return
    with compose.hydra_session(folders):
        for job in compose.expanded(overrides) if multirun else [list(overrides)]:
            _check(compose.with_hydra(job).hydra, "hydra")


def _check(node: compose.Tree, path: str) -> None:
    for key in node if OmegaConf.is_dict(node) else range(len(node)):
        where = f"{path}.{key}"
        if key == "()":
            raise ConfigError(f"{where}: alignlab builds no logging objects by '()'; name a class of `logging`")
        try:
            value = node[key]
        except OmegaConfBaseException:
            value = None  # known only once the job runs; what is built must be known before
        if key in BUILT_BY:
            locate(value, where.removesuffix(f".{TARGET}"), BUILT_BY[key])
        elif OmegaConf.is_config(value):
            _check(value, where)
