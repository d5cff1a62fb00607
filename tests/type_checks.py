"""The checker that pytest puts on every signature of the core and the plugins (see `addopts` in pyproject.toml)."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from beartype import BeartypeConf, FrozenDict, beartype

F = TypeVar("F", bound=Callable[..., Any])

CONFIGURATION = BeartypeConf(
    # jaxtyping decorates methods one by one, and beartype understands `Self` only where it decorates a whole class.
    hint_overrides=FrozenDict({Self: object}),
    # An int is a float, as mypy has it.
    is_pep484_tower=True,
)


def checked(function: F) -> F:
    """The function with its arguments and its result checked against its annotations at every call."""
    return beartype(conf=CONFIGURATION)(function)
