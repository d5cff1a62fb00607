"""Arguments of `Files`, checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from alignlab.data.files import formats
from alignlab.data.files.formats import Role
from alignlab.errors import ConfigError

Named = str | Sequence[str] | None


def paths_of(names: Named) -> tuple[Path, ...]:
    """Files, in their order."""
    listed = [names] if isinstance(names, str) else list(names or [])
    return tuple(Path(name).expanduser() for name in listed)


def columns_named(columns: str | Sequence[str]) -> tuple[str, ...]:
    """Columns, each once."""
    return tuple(dict.fromkeys([columns] if isinstance(columns, str) else columns))


def shapes_of(asked: Mapping[str, str | None]) -> dict[Role, str]:
    """The shape of each role that one is asked for.

    Raises:
        ConfigError: there is no such role or shape.
    """
    named = {_checked_role("shape", role): name for role, name in asked.items()}
    return {role: formats.named(role, name).name for role, name in named.items() if name is not None}


def _checked_role(key: str, name: str) -> Role:
    for role in get_args(Role):
        if role == name:
            return cast(Role, role)
    raise ConfigError(f"data.{key}: there is no {name!r}; files play the roles {', '.join(get_args(Role))}")
