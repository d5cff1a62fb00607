"""The table that a run ends with in the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from alignlab.report.columns import Column, Metrics, by_stage, columns_for, differences, evaluated, signed
from alignlab.text import printable

_STYLE = {1: "green", -1: "red", 0: "dim"}


def final_table(metrics: Metrics) -> Table:
    """Each model against what was measured of it, with the difference from the first one in its column.

    Args:
        metrics: as in a run's metrics.json, `"<stage>/<metric>": number`.
    """
    stages = by_stage(metrics)
    models = evaluated(stages)
    columns = columns_for(models)
    table = Table(
        title="What became of the model", title_style="bold", title_justify="left",
        caption=_caption(stages, columns), caption_justify="left",
        box=SIMPLE_HEAD, header_style="bold", padding=(0, 1), pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right")
    moved = differences(models, columns)
    for name, found in models.items():
        cells = [_cell(c, found.get(c.metric), moved[name].get(c.metric)) for c in columns]
        table.add_row(Text(printable(name)), *cells)
    return table


def _cell(column: Column, value: float | None, difference: float | None) -> Text:
    cell = Text(column.text(value))
    if value is not None and difference is not None and (text := signed(difference, column.share)):
        cell.append(f"\n{text}", style=_STYLE[column.tone(value, difference)])
    return cell


def _caption(stages: dict[str, dict[str, float]], columns: Sequence[Column]) -> str:
    """What is known beside the models: the reward model's accuracy, the raters' agreement with their true taste."""
    answers = (
        " (“when wrong”: from the first model that follows instructions)" if any(c.of_answers for c in columns) else ""
    )
    parts = [f"Below a number: its difference from the first row{answers}."]
    for stage, found in stages.items():
        if "accuracy" in found and "instruction_following" not in found:
            pairs = f" on {found['held_out_pairs']:.0f} held-out pairs" if "held_out_pairs" in found else ""
            parts.append(f"{printable(stage)}: right order {found['accuracy']:.2f}{pairs}.")
        if "agreement_with_reference" in found:
            parts.append(f"{printable(stage)}: choices agree with true taste {found['agreement_with_reference']:.2f}.")
    return "  ".join(parts)
