"""Other processes that compute a part of what the first one asks for, while it works alone otherwise.

A stage that scores, judges or asks a service does so in one process; what takes its time, sampling, is split.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Helpers(abc.ABC):
    """The other processes of a run."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def call(self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], own: Callable[[], T]) -> list[T]:
        """Have each of them call a function, while this process computes its own part.

        Args:
            function: of a module, which they import.
            arguments: of each call; plain objects.
            own: this process's part.

        Returns:
            This process's part, then theirs in order.
        """


_helping: list[Helpers] = []


def helpers() -> Helpers | None:
    """Those that help at the moment."""
    return _helping[-1] if _helping else None


@contextlib.contextmanager
def helped_by(found: Helpers) -> Iterator[None]:
    """Context in which other processes help."""
    _helping.append(found)
    try:
        yield
    finally:
        _helping.pop()
