"""Print the plan of a sweep: each distinct stage once, and what its jobs share."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from alignlab.cli.plan_tree import Stage, about, expected, held, inside, print_table, size, tree
from alignlab.sanitize import printable


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
    print_table([row for guide, stage in tree(_merged(plans)) for row in _of_several(guide, stage, plans)], console)
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
        "sizes": size(stage["sizes"]),
    }
    if parts := [s["shares"] for s in same if s["shares"]]:
        yield {
            "stage": f"{inside(guide)}{parts[0]['name']}",
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
        yield f"{stage['name']}: {held(stage['running'])}"
    for change in stage["changed"]:
        yield f"{stage['name']}: the code of {change} has changed since it last ran"


def _totals(plans: Sequence[Mapping[str, Any]], distinct: Sequence[Stage]) -> Iterator[str]:
    alone = [stage for plan in plans for stage in plan["stages"] if not stage["cached"]]
    todo = [stage for stage in distinct if not stage["cached"]]
    total = sum(len(plan["stages"]) for plan in plans)
    jobs = f"{len(plans)} {'job' if len(plans) == 1 else 'jobs'}"
    yield f"{total} stages in {jobs}, {len(distinct)} of them distinct; {len(todo)} would run{expected(todo)}"
    if len(alone) > len(todo):
        yield f"without sharing {len(alone)} would run{expected(alone)}"
    if any(stage["jobs"] > 1 for stage in todo):
        yield "`alignlab prepare -m ...` computes what several jobs need before they start"
    yield f"store: {plans[0]['store']}"
