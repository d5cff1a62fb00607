"""`alignlab gc [FOLDER ...] [--days N] [--removed] [--delete] [--store FOLDER] [--json]`: remove what no run needs.

Without `--delete` it only lists what would go. What a run of the last days names stays, with all its ancestors.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from alignlab.cli.arguments import Parser
from alignlab.cli.folders import RUNS, below, runs_of
from alignlab.cli.units import amount, duration
from alignlab.errors import ConfigError
from alignlab.pipeline import garbage
from alignlab.pipeline.garbage import Entry, Survey
from alignlab.pipeline.store import Store
from alignlab.sanitize import printable

EXAMPLES: Final = """\
examples
  alignlab gc                      what would go, and how large it is; nothing is deleted
  alignlab gc --delete             delete it
  alignlab gc --days 7             heed the runs of the last 7 days only
  alignlab gc --removed            do not heed runs whose folders were removed
  alignlab gc runs /data/runs      a store from before it knew its runs: where they are
  alignlab gc --store /data/store  another store than .alignlab
"""


def run(arguments: list[str]) -> int:
    """Print what would go, or delete it; exit code."""
    asked = _parser().parse_args(arguments)
    if asked.days < 0 or asked.days != asked.days:
        raise ConfigError(f"--days {asked.days}: must be 0 or more")
    store = Store(Path(asked.store))
    if not store.root.is_dir():
        raise ConfigError(f"--store: there is no store {store.root}; name its folder (store_dir of your runs)")
    folders = _folders(asked.folders)
    complete = bool(asked.folders)
    gone: Sequence[Entry] | None = None
    if asked.delete:
        found, gone = garbage.delete(store, asked.days, folders, complete, not asked.removed)
    else:
        found = garbage.survey(store, asked.days, garbage.all_runs(store, folders), complete, not asked.removed)
    if asked.json:
        print(json.dumps(_plain(store, asked.days, found, gone), indent=2))
    else:
        _print(store, asked.days, found, gone)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "alignlab gc",
        description="Remove from the store what no run needs. Lists only, unless --delete is given.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="runs, or folders of runs, that the store may lack"
    )
    parser.add_argument("--days", type=float, default=30.0, metavar="N", help="heed runs of the last N days; 30")
    parser.add_argument("--removed", action="store_true", help="heed no run whose folder is not where it was")
    parser.add_argument("--delete", action="store_true", help="delete, rather than list")
    parser.add_argument("--store", default=".alignlab", metavar="FOLDER", help="the store; .alignlab")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _folders(given: Sequence[str]) -> list[Path]:
    """Folders of runs: those that were named, and those in ./runs, which can only add to what is kept."""
    named = runs_of([Path(text) for text in given]) if given else []
    usual = list(below(RUNS.resolve())) if RUNS.is_dir() else []
    return list(dict.fromkeys([*named, *usual]))


def _plain(store: Store, days: float, found: Survey, gone: Sequence[Entry] | None) -> dict[str, Any]:
    entries = found.goes if gone is None else gone
    return {
        "store": str(store.root),
        "days": days,
        "deleted": gone is not None,
        "bytes": sum(entry.bytes for entry in entries),
        "entries": [
            {"path": str(e.path), "kind": e.kind, "stage": e.name, "bytes": e.bytes, "seconds": round(e.seconds)}
            for e in entries
        ],
        "artifacts_kept": found.kept,
        "artifacts_from_before_the_registry": found.unsure,
        "runs": found.runs,
        "runs_heeded": found.recent,
        "runs_heeded_without_folder": found.lost,
    }


def _print(store: Store, days: float, found: Survey, gone: Sequence[Entry] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    entries = found.goes if gone is None else gone
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head, justify in (("kind", "left"), ("stage", "left"), ("key", "left"), ("size", "right"), ("age", "right")):
        table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for e in sorted(entries, key=lambda e: -e.bytes):
        cells = (e.kind, printable(e.name[:30]), e.path.name.lstrip(".")[:12], amount(e.bytes), duration(e.seconds))
        table.add_row(*map(Text, cells))
    if entries:
        console.print(table)
    for line in _lines(store, days, found, entries, gone is not None):
        console.print(Text(line), soft_wrap=True)


def _lines(store: Store, days: float, found: Survey, entries: Sequence[Entry], deleted: bool) -> list[str]:
    total = f"{len(entries)} {'folder' if len(entries) == 1 else 'folders'}, {amount(sum(e.bytes for e in entries))}"
    heeded = f"{found.recent} of {found.runs} known runs are of the last {days:g} days or at work"
    lines = [
        f"{'deleted' if deleted else 'would go'}: {total}",
        f"{found.kept} artifacts stay: {heeded}",
        f"store: {store.root}",
    ]
    if found.lost:
        which = "1 of these runs is" if found.lost == 1 else f"{found.lost} of these runs are"
        lines.insert(2, f"{which} not where it was, moved or removed, and counts; --removed leaves it out")
    if found.unsure:
        lines.insert(
            2,
            f"{found.unsure} artifacts are older than the store's list of runs and stay; "
            "to include them, name the folders of all runs: alignlab gc runs",
        )
    if entries and not deleted:
        lines.append("nothing was deleted; `alignlab gc --delete` deletes it")
    return lines
