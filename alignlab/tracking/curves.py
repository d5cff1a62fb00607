"""`curves.jsonl`: one JSON object per logged step, in the order of the steps."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from alignlab.artifact import CURVES, write_lines
from alignlab.stage import NullTracker


class Curves(NullTracker):
    """Writes what is logged; what is logged for one step becomes one line.

    A resumed stage logs again from the step of its checkpoint: with a `work` folder, lines before it are kept, its own
    is added to, and later ones are written again, so the file reads as if nothing had happened.

    Args:
        folder: the artifact being written.
        work: a folder that outlives a crash, or None.
    """

    def __init__(self, folder: Path, work: Path | None = None) -> None:
        self._published = folder / CURVES
        self._path = (work or folder) / CURVES
        self._stream: IO[str] | None = None
        self._step = 0
        self._written = -1
        self._line: dict[str, float | None] = {}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add to the line of a step. What is not a finite number becomes null, a gap in the curve."""
        if self._stream is None:
            self._stream = self._start(step)
        if step != self._step:
            self._write()
        self._step = step
        numbers = {name: float(value) for name, value in metrics.items()}
        self._line.update({name: value if math.isfinite(value) else None for name, value in numbers.items()})

    def flush(self) -> None:
        """Bring the line of the last logged step to the disk and close the file; the next log opens it again."""
        if self._stream is not None:
            self._write()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream, self._written = None, self._step

    def close(self) -> None:
        """Write the last line and copy the file into the artifact, also where a spawned process has written it."""
        self.flush()
        if self._path.is_file():  # what is published can be read, whatever was killed while it was written
            self._published.write_text("".join(_complete_lines(self._path)), encoding="utf-8")

    def lines(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Step and numbers of every line that was written."""
        for text in _complete_lines(self._path):
            line = json.loads(text)
            step = line.pop("step")
            yield step, {name: value for name, value in line.items() if value is not None}

    def __reduce__(self) -> tuple[type["Curves"], tuple[Path, Path]]:
        return Curves, (self._published.parent, self._path.parent)  # a spawned process opens the file again

    def _start(self, step: int) -> IO[str]:
        if not 0 <= self._written < step:
            self._keep_before(step)
        return self._path.open("a", encoding="utf-8", buffering=1)  # line by line: a crash loses at most one

    def _keep_before(self, step: int) -> None:
        """Leave no later lines in the file than the step's own, in one step: a kill must not lose what is kept."""
        before = [json.loads(line) for line in _complete_lines(self._path)]
        write_lines(self._path, (line for line in before if line["step"] <= step))
        # The step that a checkpoint was made at may have been logged to already: those numbers are kept, and its line
        # stays until it is written again with what is added.
        for line in before:
            if line.pop("step") == step:
                self._step, self._line = step, line

    def _write(self) -> None:
        if self._line and self._stream is not None:
            self._stream.write(json.dumps({"step": self._step, **self._line}) + "\n")
            self._line = {}


def _complete_lines(path: Path) -> list[str]:
    """Last line of each step in a file that a crash may have cut short, without what is damaged in it."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n") and _is_line(line)]
    return list({json.loads(line)["step"]: line for line in whole}.values())


def _is_line(text: str) -> bool:
    try:
        return isinstance(json.loads(text)["step"], int)
    except (ValueError, TypeError, LookupError, RecursionError):
        return False
