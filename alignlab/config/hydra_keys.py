"""Overrides of Hydra's own section: options that are not there, or are a folder's; keys that a launcher lacks."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from alignlab.config import options
from alignlab.config.grammar import parse
from alignlab.config.internals import ConfigLoaderImpl
from alignlab.errors import ConfigError, suggestion

CHOSEN: Final = ("launcher", "sweeper")
"""Parts of Hydra's section whose keys are those of the option that was chosen."""


def check(overrides: Sequence[str], loader: ConfigLoaderImpl) -> None:
    """Refuse what Hydra would refuse in words that do not help.

    Args:
        overrides: of the command, as typed or as Hydra takes them.
        loader: that knows the options.

    Raises:
        ConfigError: there is no such option, or the one that was chosen does not take a key.
    """
    typed = [p for p in parse(overrides) if p.is_hydra_override() and not p.is_delete()]
    chosen = {str(p.key_or_group): p.value() for p in typed if isinstance(p.value(), str)}
    for group, value in chosen.items():
        if group.startswith("hydra/") and value not in (known := loader.get_group_options(group)) and known:
            raise ConfigError(
                f"{group}={value}: no such option; {group} has {', '.join(known)}{suggestion(value, known)}"
            )
    for override in typed:
        head, _, key = str(override.key_or_group).removeprefix("hydra.").partition(".")
        if head in CHOSEN and not key and not isinstance(override.value(), dict):
            names = ", ".join(loader.get_group_options(f"hydra/{head}"))
            raise ConfigError(f"{override.input_line}: choose one by hydra/{head}=NAME; there are {names}")
        option = chosen.get(f"hydra/{head}")
        if head in CHOSEN and option is not None and not override.is_add():
            _check_key(override.input_line, head, option, key.partition(".")[0], loader)


def untaken(overrides: Sequence[str], loader: ConfigLoaderImpl) -> ConfigError | None:
    """The error of a key that another launcher or sweeper takes, once Hydra has refused it."""
    for override in parse(overrides):
        head, _, key = str(override.key_or_group).removeprefix("hydra.").partition(".")
        if head not in CHOSEN or not override.is_hydra_override():
            continue
        if taking := list(_taking(head, key.partition(".")[0], loader)):
            some = " or ".join(f"hydra/{head}={name}" for name in taking)
            return ConfigError(f"{override.input_line}: the chosen {head} does not take it; it belongs to {some}")
    return None


def _check_key(text: str, head: str, option: str, key: str, loader: ConfigLoaderImpl) -> None:
    known = _keys(head, option, loader)
    if known and key not in known:
        raise ConfigError(
            f"{text}: hydra/{head}={option} does not take {key}; it takes {', '.join(known)}{suggestion(key, known)}"
        )


def _taking(head: str, key: str, loader: ConfigLoaderImpl) -> Iterator[str]:
    """The options that take a key."""
    for option in loader.get_group_options(f"hydra/{head}"):
        if key in _keys(head, option, loader):
            yield option


def _keys(head: str, option: str, loader: ConfigLoaderImpl) -> list[str]:
    """The keys of an option, as far as it has a file or a schema of its own."""
    loaded: Any = loader.repository.load_config(f"hydra/{head}/{option}")
    return [str(key) for key in loaded.config if key != "_target_"] if loaded is not None else []


def check_installed(choice: Any, loader: ConfigLoaderImpl) -> None:
    """Refuse an option of Hydra's own groups that only a folder has: Hydra would build whatever stands in it."""
    group, value = str(choice.key_or_group), choice.value()
    if not group.startswith("hydra/") or not isinstance(value, str):
        return
    if value not in (known := loader.get_group_options(group)):
        raise ConfigError(
            f"{choice.input_line}: a folder given by --config-dir may not bring options of Hydra's own groups, because "
            f"they can run code; put it into an installed plugin; {group} has {', '.join(known)}"
        )


def forget_schemas_of_others() -> None:
    """Forget schemas of launchers: Hydra would check our joblib by that of its own plugin of this name."""
    Plugins.instance()  # loads the plugins that are installed, with their schemas
    found = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for file in (options.core_conf() / "hydra" / "launcher").glob("*.yaml"):
        found.pop(file.name, None)
