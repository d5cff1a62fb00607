"""A count on the terminal while the jobs of a large sweep are checked."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
MANY: Final = 10
"""Jobs from which they are counted: fewer take a second or two."""


def counted(jobs: Sequence[T]) -> Iterator[T]:
    """Give jobs one after the other; where many are checked on a terminal, say how far it is."""
    is_shown = len(jobs) >= MANY and sys.stderr.isatty()
    try:
        for number, job in enumerate(jobs, 1):
            if is_shown:
                print(f"\rchecking job {number} of {len(jobs)}", end="", file=sys.stderr, flush=True)
            yield job
    finally:
        if is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
