"""The table that a run ends with in the terminal."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from alignlab.report.columns import Column, Metrics, by_stage, columns_for, evaluated
from alignlab.report.lineage import Parents, differences, in_words
from alignlab.sanitize import printable

_STYLE = {1: "green", -1: "red", 0: "dim"}


def final_table(metrics: Metrics, parents: Parents) -> RenderableType | None:
    """Each model against what was measured of it, with the difference from the model that it started from.

    Args:
        metrics: as in a run's metrics.json, `"<stage>/<metric>": number`.
        parents: by stage, the one whose model its training started from.

    Returns:
        What else is known where no model was measured, and None where that is nothing.
    """
    stages = by_stage(metrics)
    models = evaluated(stages)
    caption = _caption(stages, in_words(models, parents))
    return _table(models, parents, caption) if models else Text(caption) if caption else None


def _table(models: Mapping[str, Metrics], parents: Parents, caption: str) -> Table:
    columns = columns_for(models)
    table = Table(
        title="What became of the model", title_style="bold", title_justify="left",
        caption=caption or None, caption_justify="left",
        box=SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right")
    moved = differences(models, columns, parents)
    for name, found in models.items():
        cells = [_cell(c, found.get(c.metric), moved[name].get(c.metric)) for c in columns]
        table.add_row(Text(printable(name)), *cells)
    return table


def _cell(column: Column, value: float | None, difference: float | None) -> Text:
    cell = Text(column.text(value))
    if value is not None and difference is not None and (text := column.signed(difference)):
        cell.append(f"\n{text}", style=_STYLE[column.tone(value, difference)])
    return cell


def _caption(stages: Mapping[str, Metrics], started: str) -> str:
    """What is known beside the models: the reward model's accuracy, the raters' agreement with their true taste."""
    parts = [f"Below a number: its difference from the model it started from ({started})."] if started else []
    for stage, found in stages.items():
        if "accuracy" in found and "instruction_following" not in found:
            pairs = f" on {found['held_out_pairs']:.0f} held-out pairs" if "held_out_pairs" in found else ""
            parts.append(f"{printable(stage)}: right order {found['accuracy']:.2f}{pairs}.")
        if "agreement_with_reference" in found:
            parts.append(f"{printable(stage)}: choices agree with true taste {found['agreement_with_reference']:.2f}.")
    return "  ".join(parts)
