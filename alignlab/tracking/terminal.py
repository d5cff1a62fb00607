"""One line per stage in the terminal: step, loss, tokens/s, time left.

A terminal sees a bar that moves; a file or a pipe gets a plain line now and then.
"""

import abc
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from alignlab.sanitize import printable
from alignlab.stage import NullTracker

NAME_WIDTH = 18
PLAIN_EVERY = 15.0
"""Seconds between two plain lines."""

_UNITS = {
    "tokens_per_second": "tok/s",
    "answers_per_second": "answers/s",
    "prompts_per_second": "prompts/s",
    "megabytes_per_second": "MB/s",
}


class StageLine(NullTracker, abc.ABC):
    """The line of one stage."""

    name: str
    _started: float
    _work: tuple[int, int, float] | None = None
    """Total of the work that is under way, what of it was done when it was first reported, and when that was."""

    def _left(self, done: int, total: int) -> str:
        """Time left for this work: a stage may first read data, of which there is another total."""
        now = time.monotonic()
        if self._work is None:
            self._work = total, 0, self._started
        elif self._work[0] != total:
            self._work = total, done, now
        _, before, began = self._work
        return _time_left(done - before, total - before, now - began)

    @abc.abstractmethod
    def close(self, error: BaseException | None) -> None:
        """The stage is over; the line stays and says how it went."""


class Bar(StageLine):
    """A line that moves, on a terminal."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self._bars = Progress(
            TextColumn("{task.fields[mark]}"),
            TextColumn(f"{{task.description:<{NAME_WIDTH}}}"),
            BarColumn(bar_width=12),
            _Facts(),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._bars.add_task(name, total=None, mark="[cyan]•", facts="", markup=False)
        self._started = time.monotonic()
        self._bars.start()

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        left = self._left(done, total)
        self._bars.update(self._task, completed=done, total=total, facts=facts(done, total, metrics, left))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bars.console.print(_dim(text))

    def close(self, error: BaseException | None) -> None:
        """Leave the line standing: what was reached, and how long it took."""
        task = self._bars.tasks[0]
        ending = _ending(str(task.fields["facts"]), time.monotonic() - self._started, error)
        self._bars.update(
            self._task,
            mark="[red]✗" if error else "[green]✓",
            facts=ending,
            total=task.total or 1,
            completed=task.completed if task.total or error else 1,
        )
        self._bars.stop()


class PlainLines(StageLine):
    """Plain lines now and then, for a file or a pipe."""

    def __init__(self, name: str, console: Console) -> None:
        self.name, self._console = name, console
        self._started = self._printed = time.monotonic()
        self._facts = ""

    def progress(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """A line, if the last one is long enough ago."""
        now = time.monotonic()
        self._facts = facts(done, total, metrics, self._left(done, total))
        if now - self._printed >= PLAIN_EVERY:
            self._printed = now
            self._print(self._facts)

    def say(self, text: str) -> None:
        """A line."""
        self._print(text)

    def close(self, error: BaseException | None) -> None:
        """How it went."""
        self._print(_ending(self._facts, time.monotonic() - self._started, error))

    def _print(self, text: str) -> None:
        self._console.print(Text(f"{self.name}: {printable(text)}"), soft_wrap=True)


def stage_line(name: str, console: Console | None = None) -> StageLine:
    """The line for this terminal."""
    console = console or Console()
    return Bar(name, console) if console.is_terminal else PlainLines(name, console)


def say(text: str) -> None:
    """One line outside of any stage."""
    Console().print(_dim(text), soft_wrap=True)


def cached(name: str) -> None:
    """The line of a stage that need not run."""
    Console().print(Text.assemble(("✓ ", "green"), f"{printable(name):<{NAME_WIDTH}} ", ("from the store", "dim")))


def facts(done: int, total: int, metrics: Mapping[str, float], left: str) -> str:
    """`120/250  loss 0.412  12.3k tok/s  0:09 left`."""
    numbers = [f"{short(v)} {_UNITS[k]}" if k in _UNITS else f"{k} {short(v)}" for k, v in metrics.items()]
    return "  ".join([f"{done}/{total}", *numbers, left])


def short(value: float) -> str:
    """Three or four digits that a reader can take in: 0.412, 12.3k, 1.2e-05."""
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.1f}k"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.1e}"


def clock(seconds: float) -> str:
    """Minutes and seconds, `1:07`; hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _ending(last: str, seconds: float, error: BaseException | None) -> str:
    """The last facts, with the time it took in place of the time that was left."""
    took = f"stopped after {clock(seconds)}" if error else f"done in {clock(seconds)}"
    reached = last.rpartition("  ")[0]
    return f"{reached}  {took}" if reached else took


def _time_left(done: int, total: int, seconds: float) -> str:
    return f"{clock(seconds * (total - done) / done)} left" if done else "…"


def _dim(text: str) -> Text:
    return Text(f"  {printable(text)}", style="dim")


class _Facts(ProgressColumn):
    """The numbers behind the bar, in as much room as they need."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["facts"]), no_wrap=True, overflow="ellipsis")
