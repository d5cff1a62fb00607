"""Sequences whose items are made or read one at a time."""

import abc
from collections.abc import Sequence
from typing import Generic, TypeVar, overload

R = TypeVar("R")


class Itemwise(Sequence[R], Generic[R]):
    """A sequence that states its length and how one item is had; a slice is the list of its items."""

    @abc.abstractmethod
    def item(self, index: int) -> R:
        """The item at an index from 0 to the length less 1."""

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        size = len(self)
        if isinstance(index, slice):
            return [self.item(i) for i in range(*index.indices(size))]
        if not -size <= index < size:
            raise IndexError(f"item {index} of {size}")
        return self.item(index % size)
