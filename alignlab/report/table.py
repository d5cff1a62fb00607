"""The table that a run ends with in the terminal: a row per metric, a column per model, made for 80 columns."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignlab.metrics import Column
from alignlab.report.comparison import Comparison, compare
from alignlab.report.lineage import in_words
from alignlab.report.numbers import Format, interval_of
from alignlab.report.run import RunView
from alignlab.sanitize import printable

_STYLE = {1: "green", -1: "red", 0: ""}
_ARROW = {1: "↑", -1: "↓", 0: ""}
LABEL = 23
"""Characters of a metric's title, at most."""
GAP = 2
"""Between two columns."""


def final_table(run: RunView) -> RenderableType | None:
    """The models of a run and what was measured of them, with the difference from the model that each started from.

    Returns:
        What else is known where no model was measured, and None where that is nothing.
    """
    found = compare(run)
    notes = [*_notes(found), *_others(run)]
    text = Text("\n".join(notes), style="")
    if not found.models:
        return text if notes else None
    return Group(_Models(found), Text(), text)


@dataclass(frozen=True)
class _Models:
    """As many models side by side as the terminal has room for; the others below."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        cells = {
            name: [_cell(self.comparison, name, c) for c in self.comparison.shown] for name in self.comparison.models
        }
        widths = {
            name: max(len(printable(name)), *(c.cell_len for c in _lines(column))) for name, column in cells.items()
        }
        for number, names in enumerate(
            _blocks(widths, options.max_width - _label_width(self.comparison) - GAP - 1 - GAP)
        ):
            yield _table(self.comparison, names, cells, first=number == 0)


def _lines(cells: Iterable[Text]) -> list[Text]:
    return [line for cell in cells for line in cell.split("\n")]


def _blocks(widths: dict[str, int], room: int) -> list[list[str]]:
    """Names of models in blocks that fit; at least one in each."""
    blocks: list[list[str]] = [[]]
    left = room
    for name, width in widths.items():
        if blocks[-1] and width + GAP > left:
            blocks.append([])
            left = room
        blocks[-1].append(name)
        left -= width + GAP
    return blocks


def _table(comparison: Comparison, names: Sequence[str], cells: dict[str, list[Text]], first: bool) -> Table:
    table = Table(
        title="What became of the model" if first else None, title_style="bold", title_justify="left",
        box=SIMPLE_HEAD, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    table.add_column("", width=_label_width(comparison))
    table.add_column("", width=1)
    for name in names:
        table.add_column(Text(printable(name)), no_wrap=True)
    for i, column in enumerate(comparison.shown):
        table.add_row(Text(printable(column.title)), _ARROW[column.better], *(cells[name][i] for name in names))
    return table


def _label_width(comparison: Comparison) -> int:
    return min(LABEL, max((len(printable(c.title)) for c in comparison.shown), default=0))


def _cell(comparison: Comparison, model: str, column: Column) -> Text:
    """Number and difference; below them, the interval."""
    written: Format = comparison.formats[column.metric]
    value, change = comparison.models[model].get(column.metric), comparison.change(model, column)
    cell = Text(written.text(value))
    if change is not None and (text := written.signed(change.value)):
        cell.append(f" {text}", style=_STYLE[change.tone(column)] if change.is_sure else "dim")
    if interval := interval_of(value):
        cell.append(f"\n{written.narrow(interval)}", style="dim")
    return cell


def _notes(found: Comparison) -> list[str]:
    """How the table is read, and what cannot be compared in it."""
    started = in_words(found.models, found.parents)
    has_intervals = any(interval_of(value) for numbers in found.models.values() for value in numbers.values())
    parts = ["Below a number: its 95 % interval."] if has_intervals else []
    if started:
        parts.append(f"After it: the difference from the model it started from ({started}), dim where it may be noise.")
    if any(c.better for c in found.shown):
        parts.append("↑ more is better, ↓ less is.")
    measured_by = [f"{c.title}: measured by {c.reference}." for c in found.shown if c.reference]
    return [*([" ".join(parts)] if parts else []), *map(printable, [*measured_by, *(f"{r}." for r in found.remarks)])]


def _others(run: RunView) -> list[str]:
    """Numbers that stages other than models put forward: a reward model's accuracy, the raters' agreement."""
    found = []
    for stage in run.stages.values():
        for column, value in stage.headline if stage.kind not in ("policy", "evaluation") else []:
            written = Format.of([value], column.share)
            ends = f" ({written.interval(interval)})" if (interval := interval_of(value)) else ""
            found.append(f"{printable(stage.name)}: {printable(column.title)} {written.text(value)}{ends}.")
    return found
