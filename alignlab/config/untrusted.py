"""Configuration from a folder that is not installed: somebody else's experiment, which may hold anything.

Hydra sets up logging and builds its callbacks, launcher and sweeper as soon as it has composed, before alignlab's own
check of `_target_` can see them: `hydra.callbacks.x._target_: os.system` in an experiment's file would be code that
runs at once. So where such a folder is used, Hydra's section of every composed configuration is compared with that of
the root and the command line alone, composed without the folder. A folder may set the keys of `ALLOWED`; it may build
only classes of Hydra. It may not read environment variables, whose values would end up in the run's files, nor name
one to be sent anywhere (`NAMES_A_SECRET`), nor ask services of the machine's own network (`OPENS`), and its run's
files stay below the working directory.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

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
PLACES: Final = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
"""Those of them that name a folder to write to."""
UNLESS_NULL: Final = ("hydra.sweeper.storage",)
"""Keys that a folder may leave as they are by default, but not set: a study is a file that is written."""
COMPUTED: Final = re.compile(r"hydra\.(?:overrides|runtime|searchpath|job\.(?:override_dirname|config_name|num|id))\b")
"""Keys that Hydra fills in itself, or takes from the root and the command line alone."""
BUILT_BY: Final = ("hydra", "hydra_plugins")
RESOLVERS: Final = frozenset({"now", "oc.select", "oc.dict.keys", "oc.dict.values"})
"""Functions that a value may call, `${now:%Y}`. `oc.env` reads the environment; `oc.decode` evaluates a text that may
have been put together so that nobody sees a call in it; `hydra` has other values when a job runs than when it is
checked."""
NAMES_A_SECRET: Final = frozenset({"bearer_from"})
"""Keys whose value is the name of an environment variable that is sent to a service."""
OPENS: Final = frozenset({"allow_private"})
"""Keys that let a service be one of this machine or its network, which a stranger could not reach."""
_PLAIN: Final = re.compile(r"(?:[^$]|\$(?!\{)|\$\{[\w.\[\]]+\})*")
"""Texts that refer to other values at most, and call nothing."""


def check(cfg: Tree, trusted: Tree, typed: Collection[str] = (), of_job: bool = True) -> None:
    """Check a composed configuration.

    Args:
        cfg: with Hydra's section.
        trusted: Hydra's section as the root and the command line have it.
        typed: keys of the command's overrides.
        of_job: whether it is that of a job, which has all values; that of a sweep may lack those of its jobs.

    Raises:
        ConfigError: the folder sets something that it must not set.
    """
    before = dict(_leaves(OmegaConf.to_container(trusted, resolve=False), "hydra"))
    leaves = list(_leaves(OmegaConf.to_container(cfg, resolve=False), ""))
    for path, value in leaves:
        if not path.startswith("hydra."):
            _no_calls(path, value)
            _no_reach(path, value, typed)
        elif not COMPUTED.match(path) and before.get(path, ...) != value:
            _check_key(path, value)
    for path, value in leaves:
        if path in PLACES and before.get(path) != value:
            _check_place(cfg, path, of_job)


def _check_key(path: str, value: Any) -> None:
    if path.rpartition(".")[2] == TARGET:
        locate(value, path.removesuffix(f".{TARGET}"), BUILT_BY)
    if not ALLOWED.fullmatch(path) and not (path in UNLESS_NULL and value is None):
        raise ConfigError(
            f"{path}: a folder given by --config-dir may not set this key of Hydra's; if you want it, set it on the "
            f"command line"
        )
    _no_calls(path, value)


def _check_place(cfg: Tree, path: str, of_job: bool) -> None:
    """Refuse a folder outside of the working directory."""
    try:
        place = Path(str(OmegaConf.select(_numbered(cfg), path)))
    except OmegaConfBaseException as error:
        if not of_job:  # it is named after something that only a job has; the job's own check sees it
            return
        raise ConfigError(
            f"{path}: where a folder given by --config-dir would write is not known before the job begins "
            f"({str(error).splitlines()[0]}); name it after values of the configuration and ${{hydra.job.num}}"
        ) from error
    if place.is_absolute() or ".." in place.parts or not (Path.cwd() / place).resolve().is_relative_to(Path.cwd()):
        raise ConfigError(
            f"{path}: a folder given by --config-dir may not write outside of the working directory ({place}); if you "
            f"want it, set it on the command line"
        )


def _numbered(cfg: Tree) -> Tree:
    """A configuration with what Hydra adds when a job begins, so that places named after it can be seen before."""
    numbered = cfg.copy()
    with read_write(numbered.hydra), open_dict(numbered.hydra):
        numbered.hydra.job.num, numbered.hydra.job.id = 0, "0"
    return numbered


def _no_reach(path: str, value: Any, typed: Collection[str]) -> None:
    """Refuse what lets a service of the folder's choice see more than the texts that it scores."""
    key = path.rpartition(".")[2]
    if any(t.rpartition(".")[2] == key for t in typed):
        return
    what = ""
    if key in NAMES_A_SECRET and value is not None:
        what = f"name an environment variable to send ({value})"
    if key in OPENS and value is not False:
        what = "ask services of this machine or its network"
    if what:
        raise ConfigError(f"{path}: a folder given by --config-dir may not {what}; write it on the command line")


def _no_calls(path: str, value: Any) -> None:
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return
    for name in _calls(path, value):
        if name not in RESOLVERS:
            what = "read environment variables" if name in ("oc.env", "env") else f"call {name or 'a function'}"
            raise ConfigError(
                f"{path}: a folder given by --config-dir may not {what} ({value}); write the value on the command line"
            )


def _calls(path: str, value: str) -> Iterator[str]:
    """Names of the functions that a text calls, a computed name as it is written."""
    from omegaconf.grammar_parser import parse

    try:
        nodes: list[Any] = [parse(value)]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    while nodes:
        node = nodes.pop()
        if (name := getattr(node, "resolverName", None)) is not None:
            yield name().getText()
        nodes += getattr(node, "children", None) or []


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
