"""SIGKILL at a chosen moment: at a step, while a checkpoint is written, while an artifact is published, at any file.

For tests of what a kill leaves behind. `arm` changes the running process for good, so call it in one that was forked or
started for this.
"""

import functools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

Kind = Literal["step", "checkpoint", "publication", "file"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_FILES: Final = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
"""Events that Python announces before it does them."""


@dataclass(frozen=True)
class Moment:
    """A moment in the life of a process.

    Args:
        kind: "step", before and after each optimizer step; "checkpoint", before each portion, fsync, link and rename of
            a resumable checkpoint or of the best weights; "publication", the same from the artifact's manifest to the
            removal of its work folder; "file", before any file below `root` is opened, renamed, made or removed.
        number: of the moments of its kind, from 0, counted over the process.
    """

    kind: Kind
    number: int


class Bomb:
    """Counts the moments of a process, and ends it at one of them.

    Args:
        moment: to be killed at; None only counts.
    """

    def __init__(self, moment: Moment | None = None) -> None:
        self.moment = moment
        self.counts: Counter[str] = Counter()
        self._within: list[Kind] = []

    def tick(self, kind: Kind) -> None:
        """A moment has come."""
        number = self.counts[kind]
        self.counts[kind] += 1
        if self.moment == Moment(kind, number):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, kind: Kind) -> None:
        """Make what happens within a function moments of a kind, its beginning and end included."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def armed(*arguments: Any, **named: Any) -> Any:
            self._within.append(kind)
            try:
                self.tick(kind)
                found = function(*arguments, **named)
                self.tick(kind)
                return found
            finally:
                self._within.pop()

        setattr(owner, name, armed)

    def before(self, owner: Any, name: str) -> None:
        """Make each call of a function a moment, where it is within one of `around`."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def armed(*arguments: Any, **named: Any) -> Any:
            if self._within and self._within[-1] != "step":
                self.tick(self._within[-1])
            return function(*arguments, **named)

        setattr(owner, name, armed)


def arm(moment: Moment | None, root: Path) -> Bomb:
    """Let this process be killed at a moment.

    Args:
        moment: None only counts the moments.
        root: of the files whose moments are counted.
    """
    from alignlab.pipeline import store
    from alignlab.training import checkpoints, sealed
    from alignlab.training.module import StageModule

    bomb, below = Bomb(moment), str(root)
    bomb.around(StageModule, "_step", "step")
    bomb.around(checkpoints.Checkpoints, "save_checkpoint", "checkpoint")
    bomb.around(checkpoints.Checkpoints, "save_best", "checkpoint")
    for name in ("sync_tree", "put"):
        bomb.around(store, name, "publication")
    bomb.before(sealed._Hashed, "write")
    for name in ("fsync", "replace", "link"):
        bomb.before(os, name)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILES and str(arguments[0]).startswith(below):
            bomb.tick("file")

    sys.addaudithook(heard)
    return bomb
