"""Print plans: a tree of stages for one run, and for a sweep what its jobs share."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        console.print(Text(f"  {key}: {_row(sizes)}"), soft_wrap=True)
    rows = [cells for row in tree(plan["stages"]) for cells in _rows(*row)]
    _print_table(rows, console)
    for stage in plan["stages"]:
        for line in _notes(stage):
            console.print(Text(printable(line)), soft_wrap=True)
    todo = [stage for stage in plan["stages"] if not stage["cached"]]
    told = f"{len(todo)} of {len(plan['stages'])} stages would run{_expected(todo)}; store: {plan['store']}"
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
            _inside(guide), {**part, "inputs": shared["inputs"], "sizes": {}, "memory_mb": None, "seconds": None}
        )


def _inside(guide: str) -> str:
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
        "sizes": _size(stage["sizes"]),
        "memory": _amount(stage["memory_mb"]),
        "also takes": takes,
        "makes": stage["makes"],
        "key": stage["fingerprint"][:8],
    }


def _notes(stage: Stage) -> Iterator[str]:
    """Sentences on a stage that would run."""
    name = stage["name"]
    if stage["running"] is not None:
        yield f"{name}: {_held(stage['running'])}"
    if stage["checkpoint"]:
        yield f"{name}: continues from the checkpoint of an interrupted run"
    for change in stage["why"][:REASONS]:
        yield f"{name}: {change['text']}"
    if len(stage["why"]) > REASONS:
        yield f"{name}: and {len(stage['why']) - REASONS} more differences (--json lists them)"


def _held(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return "another process makes it"
    return f"process {holder['pid']} on {holder.get('host', '?')} makes it, since {holder.get('since', '?')}"


# ---- a sweep ---------------------------------------------------------------------------------------------------------
def print_sweep(plans: Sequence[Mapping[str, Any]]) -> None:
    """Each distinct stage once, with the number of jobs that need it, and what sharing saves."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    common = [text for text in plans[0]["overrides"] if all(text in plan["overrides"] for plan in plans)]
    title = f"{plans[0]['name']}  {len(plans)} {'job' if len(plans) == 1 else 'jobs'}  {' '.join(common)}"
    console.print(Text(printable(title), style="bold"), soft_wrap=True)
    for line in _swept(plans, common):
        console.print(Text(printable(f"  {line}")), soft_wrap=True)
    _print_table([row for guide, stage in tree(_merged(plans)) for row in _of_several(guide, stage, plans)], console)
    distinct = {stage["fingerprint"]: stage for plan in plans for stage in plan["stages"]}
    for line in dict.fromkeys(line for stage in distinct.values() for line in _sweep_notes(stage)):
        console.print(Text(printable(line)), soft_wrap=True)
    for line in _totals(plans, list(distinct.values())):
        console.print(Text(line), soft_wrap=True)


def _swept(plans: Sequence[Mapping[str, Any]], common: Sequence[str]) -> Iterator[str]:
    """The keys that differ, with all their values."""
    pairs = [text.partition("=") for plan in plans for text in plan["overrides"] if text not in common]
    for key in dict.fromkeys(key for key, _, _ in pairs):
        values = list(dict.fromkeys(value for k, _, value in pairs if k == key))
        yield f"{key}: {', '.join(values[:12])}{f', ... ({len(values)} values)' if len(values) > 12 else ''}"


def _merged(plans: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """The stages of all jobs by name, those of an earlier job first."""
    found: dict[str, Stage] = {}
    for stage in (stage for plan in plans for stage in plan["stages"]):
        found.setdefault(stage["name"], stage)
    return list(found.values())


def _of_several(guide: str, stage: Stage, plans: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """The row of all stages of one name, and below it that of the part of their work that jobs share."""
    same = [s for plan in plans for s in plan["stages"] if s["name"] == stage["name"]]
    distinct = {s["fingerprint"]: s for s in same}
    known = [s["seconds"] for s in distinct.values() if s["seconds"] is not None]
    yield {
        "stage": f"{guide}{stage['name']}",
        "distinct": str(len(distinct)),
        "jobs": _counts(Counter(s["fingerprint"] for s in same)),
        "state": _states(s["state"] for s in distinct.values()),
        "time": about(sum(known) if known else None),
        "sizes": _size(stage["sizes"]),
    }
    if parts := [s["shares"] for s in same if s["shares"]]:
        yield {
            "stage": f"{_inside(guide)}{parts[0]['name']}",
            "distinct": str(len({part["recipe"] for part in parts})),
            "jobs": _counts(Counter(part["recipe"] for part in parts)),
            "state": _states({p["recipe"]: "cached" if p["cached"] else "missing" for p in parts}.values()),
            "time": "",
            "sizes": "",
        }


def _counts(jobs: Mapping[str, int]) -> str:
    """How many jobs need each of some stages: `20`, or `4 each`."""
    least, most = min(jobs.values()), max(jobs.values())
    return f"{least if least == most else f'{least}-{most}'}{' each' if len(jobs) > 1 else ''}"


def _states(states: Iterable[str]) -> str:
    counted = Counter(states)
    return next(iter(counted)) if len(counted) == 1 else ", ".join(f"{n} {state}" for state, n in counted.items())


def _sweep_notes(stage: Stage) -> Iterator[str]:
    """Of a sweep only what is changed by hand or at work: what follows from that is many lines."""
    if stage["running"] is not None:
        yield f"{stage['name']}: {_held(stage['running'])}"
    for change in stage["changed"]:
        yield f"{stage['name']}: the code of {change} has changed since it last ran"


def _totals(plans: Sequence[Mapping[str, Any]], distinct: Sequence[Stage]) -> Iterator[str]:
    alone = [stage for plan in plans for stage in plan["stages"] if not stage["cached"]]
    todo = [stage for stage in distinct if not stage["cached"]]
    total = sum(len(plan["stages"]) for plan in plans)
    jobs = f"{len(plans)} {'job' if len(plans) == 1 else 'jobs'}"
    yield f"{total} stages in {jobs}, {len(distinct)} of them distinct; {len(todo)} would run{_expected(todo)}"
    if len(alone) > len(todo):
        yield f"without sharing {len(alone)} would run{_expected(alone)}"
    if any(stage["jobs"] > 1 for stage in todo):
        yield "`alignlab prepare -m ...` computes what several jobs need before they start"
    yield f"store: {plans[0]['store']}"


# ---- both ------------------------------------------------------------------------------------------------------------
def _print_table(rows: Sequence[Mapping[str, str]], console: Any) -> None:
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
        table.add_row(*(Text(row[head], style=style if head == "state" else "") for head in heads))
    console.print(table, soft_wrap=sum(widths[h] + 2 for h in heads) > console.width + 2)


def about(seconds: float | None) -> str:
    """An estimate of time: `~ 3 min`."""
    text = duration(seconds)
    return f"~ {text}" if text and not text.startswith("<") else text


def _expected(stages: Sequence[Stage]) -> str:
    """What some stages take together, by earlier runs; nothing where none of them has run before."""
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


def _size(sizes: Mapping[str, Any]) -> str:
    """The headline of a stage's sizes: `300 steps of 16`, or `pairs=2400`; `--json` has all of them."""
    if {"steps", "batch_size"} <= sizes.keys():
        return f"{sizes['steps']} steps of {sizes['batch_size']}"
    return _row(dict(list(sizes.items())[:1]))
