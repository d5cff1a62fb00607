"""Print the plan of a run: a tree of its stages, and why some of them would run."""

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from alignlab.cli.units import duration
from alignlab.sanitize import printable

COLOURS: Final = {"cached": "green", "running": "cyan", "stale": "magenta"}
DROPPED: Final = ("key", "makes", "also takes", "memory", "sizes", "time")
"""Columns that are left out where the terminal is narrow, the least important first."""
REASONS: Final = 6
"""Lines on why a stage is stale; `--json` has all of them."""
MAIN: Final = ("policy", "reward", "preferences")
"""Inputs below which a stage stands in the tree, the first that it has."""

Stage = Mapping[str, Any]
Row = tuple[str, Stage]
"""Beginning of a line of the tree, and the stage."""


# ---- one run ---------------------------------------------------------------------------------------------------------
def print_plan(plan: Mapping[str, Any]) -> None:
    """One line per stage below the stage that it comes from, then why stages would run."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(printable(f"{plan['name']}  {' '.join(plan['overrides'])}"), style="bold"), soft_wrap=True)
    for key, sizes in plan["made_of"].items():
        for line in textwrap.wrap(f"  {key}: {_row(sizes)}", console.width, subsequent_indent="    "):
            console.print(Text(line), soft_wrap=True)
    rows = [cells for row in tree(plan["stages"]) for cells in _rows(*row)]
    print_table(rows, console)
    for stage in plan["stages"]:
        for line in _notes(stage):
            console.print(Text(printable(line)), soft_wrap=True)
    todo = [stage for stage in plan["stages"] if not stage["cached"]]
    told = f"{len(todo)} of {len(plan['stages'])} stages would run{expected(todo)}; store: {plan['store']}"
    console.print(Text(told), soft_wrap=True)


def tree(stages: Sequence[Stage]) -> Iterator[Row]:
    """Every stage once, each below its main input, with the guides of a tree."""
    names = [stage["name"] for stage in stages]
    below: dict[str, list[Stage]] = {}
    for stage in stages:
        below.setdefault(_parent(stage, names), []).append(stage)

    def walk(parent: str, indent: str) -> Iterator[Row]:
        children = below.get(parent, [])
        for child in children:
            last = child is children[-1]
            yield indent + ("" if not parent else "└─ " if last else "├─ "), child
            yield from walk(child["name"], indent + ("" if not parent else "   " if last else "│  "))

    yield from walk("", "")


def _parent(stage: Stage, names: Sequence[str]) -> str:
    """The stage below which another stands; empty for one that comes from none, or takes all."""
    given = {k: source for k, source in stage["inputs"].items() if source in names}
    if len(given) > 3 and all(k == v for k, v in given.items()):
        return ""
    return next((given[key] for key in (*MAIN, *given) if key in given), "")


def _rows(guide: str, stage: Stage) -> Iterator[dict[str, str]]:
    """The row of a stage, and below it that of the part of its work that runs share."""
    yield _cells(guide, stage)
    if shared := stage["shares"]:
        state = "cached" if shared["cached"] else "missing"
        part = {"name": shared["name"], "makes": "logp", "state": state, "fingerprint": shared["recipe"]}
        yield _cells(
            inside(guide), {**part, "inputs": shared["inputs"], "sizes": {}, "memory_mb": None, "seconds": None}
        )


def inside(guide: str) -> str:
    """Guides of a line that belongs to the stage above it."""
    return guide.replace("├─", "│ ").replace("└─", "  ") + "  "


def _cells(guide: str, stage: Stage) -> dict[str, str]:
    """Text of each column for one stage."""
    inputs = stage["inputs"]
    takes = (
        "all" if len(inputs) > 3 and all(k == v for k, v in inputs.items()) else ", ".join(list(inputs.values())[1:])
    )
    return {
        "stage": f"{guide}{stage['name']}",
        "state": stage["state"],
        "time": about(stage["seconds"]),
        "sizes": size(stage["sizes"]),
        "memory": _amount(stage["memory_mb"]),
        "also takes": takes,
        "makes": stage["makes"],
        "key": stage["fingerprint"][:8],
    }


def _notes(stage: Stage) -> Iterator[str]:
    """Sentences on a stage that would run."""
    name = stage["name"]
    if stage["running"] is not None:
        yield f"{name}: {held(stage['running'])}"
    if stage["checkpoint"]:
        yield f"{name}: continues from the checkpoint of an interrupted run"
    texts = _reasons(stage["why"])
    yield from (f"{name}: {text}" for text in texts[:REASONS])
    if len(texts) > REASONS:
        yield f"{name}: and {len(texts) - REASONS} more differences (--json lists them)"


def _reasons(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The changes; keys of one name with the same values, such as copies of a seed, are one line."""
    found: dict[tuple[str, str], list[str]] = {}
    for change in changes:
        last = change["what"].rpartition(".")[2] if change["new"] is not None else change["text"]
        found.setdefault((last, f"{change['old']} {change['new']}"), []).append(change["text"])
    ends = {key: f" (and {len(texts) - 1} more of the name {key[0]})" for key, texts in found.items()}
    return [texts[0] + (ends[key] if len(texts) > 1 else "") for key, texts in found.items()]


def held(holder: Mapping[str, Any]) -> str:
    """Sentence on the process that makes a stage at this moment."""
    if "pid" not in holder:
        return "another process makes it"
    since = holder.get("since")
    told = f", for {duration(max(0.0, time.time() - since))}" if isinstance(since, float) else ""
    return f"process {holder['pid']} on {holder.get('host', '?')} makes it{told}"


# ---- both ------------------------------------------------------------------------------------------------------------
def print_table(rows: Sequence[Mapping[str, str]], console: Any) -> None:
    """Print rows, without the columns that do not fit."""
    from rich.table import Table
    from rich.text import Text

    heads = [head for head in rows[0] if head in ("stage", "state") or any(row[head] for row in rows)]
    widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    for dropped in DROPPED:
        if dropped in heads and sum(widths[h] + 2 for h in heads) > console.width + 2:
            heads.remove(dropped)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        table.add_column(head, min_width=widths[head], no_wrap=True)
    for row in rows:
        style = COLOURS.get(row["state"], "yellow")
        table.add_row(*(Text(printable(row[head]), style=style if head == "state" else "") for head in heads))
    console.print(table, soft_wrap=sum(widths[h] + 2 for h in heads) > console.width + 2)


def about(seconds: float | None) -> str:
    """An estimate of time: `~ 3 min`."""
    text = duration(seconds)
    return f"~ {text}" if text and not text.startswith("<") else text


def expected(stages: Sequence[Stage]) -> str:
    """Time of some stages together, by earlier runs; nothing where none of them has run before."""
    known = [stage["seconds"] for stage in stages if stage["seconds"] is not None]
    if not known:
        return ""
    missing = len(stages) - len(known)
    rest = f", and {missing} that {'was' if missing == 1 else 'were'} never timed" if missing else ""
    return f" ({about(sum(known))}{rest})"


def _amount(mib: int | None) -> str:
    """An estimate of memory for a reader: `~ 31 GiB`."""
    if mib is None:
        return ""
    return f"~ {mib / 1024:.3g} GiB" if mib >= 1024 else f"~ {mib} MiB"


def _row(content: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in content.items())


def size(sizes: Mapping[str, Any]) -> str:
    """The headline of a stage's sizes: `300 steps of 16`, or `pairs=2400`; `--json` has all of them."""
    if {"steps", "batch_size"} <= sizes.keys():
        return f"{sizes['steps']} steps of {sizes['batch_size']}"
    return _row(dict(list(sizes.items())[:1]))
