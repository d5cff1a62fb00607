"""The resumable checkpoints of a stage: the last two that are whole, and the best weights that belong to them.

All of a checkpoint is written in the stage's own work folder, never in `$TMPDIR`, and replaces nothing before it is on
the disk. What is damaged all the same is found by its digest, set aside and named.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from alignlab.artifact import CURVES
from alignlab.durable import put
from alignlab.errors import StoreError
from alignlab.training import sealed

LAST: Final = "last.ckpt"
"""The resumable checkpoint, in a stage's work folder."""
PREVIOUS: Final = "previous.ckpt"
"""The one before it."""
_NEW: Final = ".new"
_DAMAGED: Final = ".damaged"


class Checkpoints(CheckpointIO):
    """Writes and chooses the checkpoints of a stage.

    Args:
        work: the stage's work folder.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.last, self._previous = work / LAST, work / PREVIOUS

    # ---- for Lightning --------------------------------------------------------------------------------------------
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; the one that has the name so far becomes the previous one."""
        file, temporary = Path(path), _beside(Path(path))
        steps = {"step": int(checkpoint["global_step"])}
        keeper = checkpoint.get("callbacks", {}).get("Keeper", {})
        sealed.write(checkpoint, temporary, {**steps, "best_step": int(keeper.get("best_step", 0))})
        self._keep_previous(file)
        put(temporary, file)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint, onto the CPU."""
        return dict(torch.load(path, map_location=map_location, weights_only=True))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)

    def _keep_previous(self, file: Path) -> None:
        """Give the checkpoint so far a second name; where the file system has no links, another one."""
        if not file.is_file():
            return
        linked = _beside(self._previous)
        linked.unlink(missing_ok=True)
        try:
            os.link(file, linked)
        except OSError:
            os.replace(file, self._previous)
            return
        os.replace(linked, self._previous)
        linked.unlink(missing_ok=True)  # it stays where both were names of one file already

    # ---- best weights ---------------------------------------------------------------------------------------------
    def best(self, step: int) -> Path:
        """File of the best weights, which were those after a step."""
        return self.work / f"best-{step:06d}.pt"

    def save_best(self, weights: dict[str, Any], step: int) -> None:
        """Write the best weights, those after a step."""
        file = self.best(step)
        sealed.write(weights, _beside(file), {"step": step})
        put(_beside(file), file)
        self.forget_bests(step)

    def forget_bests(self, step: int) -> None:
        """Remove the best weights but those of a step, and those that belong to one of the two checkpoints."""
        steps = {step, *(sealed.notes_of(f).get("best_step", 0) for f in (self.last, self._previous))}
        for file in set(self.work.glob("best-*.pt")) - {self.best(n) for n in steps}:
            file.unlink()

    def load_best(self, step: int) -> dict[str, Any]:
        """The best weights.

        Raises:
            StoreError: they are damaged; they are set aside, and so the same command makes them again.
        """
        file = self.best(step)
        if problem := sealed.damage(file):
            _set_aside(file)
            raise StoreError(
                f"{file}, the best weights, {problem}; nothing is published. The same command continues from a "
                f"checkpoint of before they were written, or starts the stage again"
            )
        return dict(torch.load(file, map_location="cpu", weights_only=True))

    # ---- continuing -----------------------------------------------------------------------------------------------
    def resumable(self, say: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is whole, with its best weights; what is not is set aside, in one line.

        Args:
            say: tells the user where the stage continues, and why not from the last checkpoint.
        """
        self._tidy()
        had_any = self.last.is_file() or self._previous.is_file()
        problems = list[str]()
        for file in (self.last, self._previous):
            if not (problem := self._problem(file)):
                step = sealed.notes_of(file)["step"]
                say(f"{'; '.join([*problems, ''])}continues from {file}, step {step}")
                return file
            if file.is_file() or file == self.last:  # at the first save there is none before it
                problems.append(problem)
            _set_aside(file)
        if had_any:
            say(f"{'; '.join(problems)}; so the stage starts again, and what is not used is kept as *{_DAMAGED}")
        elif (self.work / CURVES).is_file():
            say("an earlier attempt ended before its first resumable checkpoint; the stage starts again")
        for file in self.work.glob("best-*.pt"):
            file.unlink()
        return None

    def _tidy(self) -> None:
        """Remove what a process that was killed had begun to write: a work folder belongs to one process at a time."""
        for pattern in (f"*.ckpt{_NEW}", f"best-*.pt{_NEW}"):
            for file in self.work.glob(pattern):
                file.unlink()

    def _problem(self, file: Path) -> str:
        """Reason not to continue from a checkpoint; empty where there is none."""
        if problem := sealed.damage(file):
            return f"{file} {problem}"
        best_step = sealed.notes_of(file).get("best_step", 0)
        if best_step and (problem := sealed.damage(self.best(best_step))):
            _set_aside(self.best(best_step))
            return f"{file} is of no use without {self.best(best_step).name}, which {problem}"
        return ""


def _beside(file: Path) -> Path:
    """Name under which a file is written, in its own folder."""
    return file.with_name(file.name + _NEW)


def _set_aside(file: Path) -> None:
    if file.is_file():
        os.replace(file, file.with_suffix(_DAMAGED))
