"""`alignlab compare RUN RUN ... [--metrics NAMES] [--all] [--json]`: in what runs differ.

First the keys of the configuration that differ, then the metrics. Runs that differ only in their seed are one setting:
mean and standard error over seeds. A sweep's folder stands for its runs.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignlab.cli.arguments import Parser
from alignlab.cli.folders import runs_of
from alignlab.cli.runs_table import short
from alignlab.cli.units import brief
from alignlab.errors import ConfigError, suggestion
from alignlab.pipeline.run_record import RunRecord
from alignlab.sanitize import printable

if TYPE_CHECKING:
    from alignlab.report.settings import Comparison, Difference, Setting

EXAMPLES: Final = """\
examples
  alignlab compare runs/2026-11-26/12-00-00 runs/2026-11-26/14-30-00
  alignlab compare runs/2026-11-26/12-00-00              the runs of a sweep
  alignlab compare SWEEP OTHER --metrics dpo/validation_loss
  alignlab compare SWEEP --json

A is the first setting; the others are compared with it. Where all of its seeds are those of the other setting, their
standard error is that of the differences by seed ("paired"); otherwise it is sqrt(a² + b²) of both standard errors.
"""
SHOWN: Final = 12
"""Metrics that are printed where none are named; `--all` prints all."""
VALUE: Final = 12
"""Characters of a value next to the letter of its setting, at most."""
LINES: Final = 60
"""Lines that they take, at most: of many settings fewer metrics are printed."""


def run(arguments: list[str]) -> int:
    """Print the comparison, or JSON; exit code."""
    asked = _parser().parse_args(arguments)
    if not asked.runs:
        raise ConfigError("no run was named: alignlab compare RUN RUN ..., or the folder of a sweep")
    folders = runs_of([Path(text) for text in asked.runs])
    complete, left_out = _sorted(folders)
    if len(complete) < 2:
        told = "; ".join(f"{record.folder} {record.status}" for record in left_out[:5])
        raise ConfigError(f"two completed runs are needed, and there is {len(complete)}{f' ({told})' if told else ''}")
    from alignlab.report.settings import Comparison

    found = Comparison.of(complete)
    names = _named(asked.metrics, found)
    if asked.json:
        print(json.dumps({**found.plain(names), "left_out": {str(r.folder): r.status for r in left_out}}, indent=2))
    else:
        _print(found, names, asked.all, left_out)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "alignlab compare",
        description="In what runs differ: their configuration, then their metrics, averaged over seeds.",
        examples=EXAMPLES,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or of a sweep")
    parser.add_argument("--metrics", metavar="NAMES", help="only these: STAGE/METRIC,...")
    parser.add_argument("--all", action="store_true", help=f"print every metric, not the {SHOWN} that differ most")
    parser.add_argument("--json", action="store_true", help="print JSON, with every metric")
    return parser


def _sorted(folders: Sequence[Path]) -> tuple[list[Path], list[RunRecord]]:
    """Completed runs, and the others."""
    records = [RunRecord.read(folder) for folder in folders]
    done = [record for record in records if record.status == "completed"]
    return [record.folder for record in done], [record for record in records if record not in done]


def _named(text: str | None, found: "Comparison") -> list[str] | None:
    if not text:
        return None
    names, known = [word.strip() for word in text.split(",") if word.strip()], found.metrics
    for name in names:
        if name not in known:
            raise ConfigError(f"--metrics {name}: no run has it{suggestion(name, known) or f'; such as {known[:3]}'}")
    return names


# ---- printing --------------------------------------------------------------------------------------------------------
def _print(found: "Comparison", names: Sequence[str] | None, everything: bool, left_out: Sequence[RunRecord]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if len(found.settings) > 2:
        _print_settings(found, console)
    else:
        for setting in found.settings:
            console.print(_title(setting), soft_wrap=True)
        _print_keys(found, console)
    for record in left_out:
        console.print(Text(printable(f"left out: {record.folder} ({record.status})"), style="yellow"), soft_wrap=True)
    for folder in found.repeated:
        why = "a later run has the same configuration, code, data and seed"
        console.print(Text(printable(f"left out: {_shown(folder)} ({why})"), style="yellow"), soft_wrap=True)
    differences = found.differences(names)
    most = min(SHOWN, max(1, LINES // len(found.settings)))
    shown = differences if everything or names else differences[:most]
    _print_metrics(found, shown, console)
    if len(shown) < len(differences):
        more = f"{len(differences) - len(shown)} more that differ less: --all; one of them: --metrics STAGE/METRIC"
        console.print(Text(more, style="dim"))


def _title(setting: "Setting") -> Any:
    from rich.text import Text

    seeds = _seeds(setting)
    several = f"{len(setting.trials)} runs, seeds {seeds}" if len(setting.trials) > 1 else f"seed {seeds}"
    common = printable(_shown(setting.trials[0].folder))
    return Text.assemble(
        (setting.letter, "bold"), f"  {common}{' ...' if len(setting.trials) > 1 else ''}  ({several})"
    )


def _seeds(setting: "Setting") -> str:
    return ", ".join(dict.fromkeys(trial.seed for trial in setting.trials if trial.seed))


def _shown(folder: Path) -> str:
    """A folder as short as it can be: from here where it is below."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _print_settings(found: "Comparison", console: Any) -> None:
    """A line for each setting: the values of the keys that differ, its first folder, its seeds."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    heads = short([key.name for key in found.keys])
    for head in ("", *(heads[key.name] for key in found.keys), "run", "seeds"):
        table.add_column(Text(head), overflow="fold")
    for i, setting in enumerate(found.settings):
        folder = f"{_shown(setting.trials[0].folder)}{' ...' if len(setting.trials) > 1 else ''}"
        cells = [setting.letter, *(brief(printable(key.values[i])) for key in found.keys), folder, _seeds(setting)]
        table.add_row(*map(Text, cells))
    console.print(table)
    along = sum(len(key.along) for key in found.keys)
    told = ", ".join(key.name for key in found.keys) + (f", and {along} that change with them" if along else "")
    console.print(Text(f"differ in {printable(told)}", style="dim"), soft_wrap=True)


def _print_keys(found: "Comparison", console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    if not found.keys:
        console.print(Text("nothing differs but the seed: neither a key of the configuration nor code and data"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("configuration", *(s.letter for s in found.settings)):
        table.add_column(head, overflow="fold")
    for key in found.keys:
        more = f"  (+{len(key.along)} with it)" if key.along else ""
        table.add_row(Text(printable(f"{key.name}{more}")), *(Text(printable(text)) for text in key.values))
    console.print(table)


def _label(found: "Comparison", i: int) -> str:
    """A setting's letter, with its value where only one key differs."""
    values = [brief(printable(key.values[i])) for key in found.keys]
    one = f"  {values[0]}" if len(values) == 1 and len(values[0]) <= VALUE else ""
    return f"{found.settings[i].letter}{one}"


def _print_metrics(found: "Comparison", shown: Sequence["Difference"], console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    if not shown:
        console.print(Text("no metric differs"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    count = len(found.settings)
    table.add_column("metric", overflow="fold")
    for head in ("A", "B", "B - A")[: 2 * count - 1] if count < 3 else ("", "mean", "- A"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in shown:
        if count < 3:
            table.add_row(Text(printable(row.metric)), *map(Text, (*row.texts, *row.changes[1:])))
            continue
        for i in range(count):
            name = row.metric if i == 0 else ""
            table.add_row(Text(printable(name)), *map(Text, (_label(found, i), row.texts[i], row.changes[i])))
    console.print(table)
    if any(len(setting.trials) > 1 for setting in found.settings):
        paired = "differences are paired by seed" if found.is_paired else "differences are of independent seeds"
        told = f"; {paired}" if count > 1 else ""
        console.print(Text(f"± standard error over seeds (number of them){told}", style="dim"))
