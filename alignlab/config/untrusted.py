"""Configuration from a folder that is not installed: somebody else's experiment, which may hold anything.

Hydra sets up logging and builds its callbacks, launcher and sweeper as soon as it has composed, before alignlab's own
check of `_target_` can see them: `hydra.callbacks.x._target_: os.system` in an experiment's file would be code that
runs at once. So where such a folder is used, Hydra's section of every composed configuration is compared with that of
the root and the command line alone. A folder may set the keys of `ALLOWED`; it may build only classes of Hydra, and it
may not read environment variables, whose values would end up in the run's files.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from omegaconf import OmegaConf

from alignlab.config.locate import TARGET, locate
from alignlab.errors import ConfigError

Tree: TypeAlias = Any
ALLOWED: Final = re.compile(
    r"hydra\.(?:mode|run\.dir|sweep\.dir|sweep\.subdir|job\.name"
    r"|sweeper\.(?:_target_|params|max_batch_size|direction|n_trials|n_jobs|max_failure_rate|study_name|sampler"
    r"|sampler_arguments|pruner|pruner_arguments|seed|max_failures)\b.*"
    r"|launcher\.(?:_target_|n_jobs))"
)
"""Keys of Hydra's section that a folder may set."""
UNLESS_NULL: Final = ("hydra.sweeper.storage",)
"""Keys that a folder may leave as they are by default, but not set: a study is a file that is written."""
COMPUTED: Final = re.compile(r"hydra\.(?:overrides|runtime|job\.(?:override_dirname|config_name|num|id))\b")
"""Keys that Hydra fills in itself."""
BUILT_BY: Final = ("hydra", "hydra_plugins")
ENVIRONMENT: Final = re.compile(r"\$\{\s*(?:oc\.)?env\s*:")


def check(cfg: Tree, trusted: Tree) -> None:
    """Check a composed configuration.

    Args:
        cfg: with Hydra's section.
        trusted: Hydra's section as the root and the command line have it.

    Raises:
        ConfigError: the folder sets something that it must not set.
    """
    before = dict(_leaves(OmegaConf.to_container(trusted, resolve=False), "hydra"))
    for path, value in _leaves(OmegaConf.to_container(cfg, resolve=False), ""):
        if not path.startswith("hydra."):
            _no_environment(path, value)
        elif not COMPUTED.match(path) and before.get(path, ...) != value:
            _check_key(path, value)


def _check_key(path: str, value: Any) -> None:
    if path.rpartition(".")[2] == TARGET:
        locate(value, path.removesuffix(f".{TARGET}"), BUILT_BY)
    if not ALLOWED.fullmatch(path) and not (path in UNLESS_NULL and value is None):
        raise ConfigError(
            f"{path}: a folder given by --config-dir may not set this key of Hydra's; if you want it, set it on the "
            f"command line"
        )
    _no_environment(path, value)


def _no_environment(path: str, value: Any) -> None:
    if isinstance(value, str) and ENVIRONMENT.search(value):
        raise ConfigError(
            f"{path}: a folder given by --config-dir may not read environment variables ({value}); write the value on "
            f"the command line"
        )


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and unresolved value of everything below a node; a node that is taken over whole is its text."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and node:
        for number, value in enumerate(node):
            yield from _leaves(value, f"{path}.{number}")
    else:
        yield path, node
