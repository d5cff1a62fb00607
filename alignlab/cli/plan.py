"""`alignlab plan experiment=... [KEY=VALUE ...] [--json]`: the stages, their inputs and sizes, and what would run.

Composes and checks the configuration as a run would, makes every fingerprint and asks the store; nothing trains and
nothing is written. With `-m` it does so for every job of the sweep.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.cli import import_stubs
from alignlab.config import compose, replaced
from alignlab.config.build import TARGET, Builder
from alignlab.pipeline.plan import Step, plan
from alignlab.pipeline.store import Store

NOT_SIZES = ("seed", "table_rows")


def run(arguments: list[str]) -> int:
    """Print the plan, or JSON; exit code."""
    parser = argparse.ArgumentParser("alignlab plan", description="What an experiment would run.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for a run: experiment=lifecycle ...")
    parser.add_argument("-m", "--multirun", action="store_true", help="every job of a sweep")
    parser.add_argument("--config-dir", "-cd", help="a folder of your own options")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_intermixed_args(arguments)
    plans = _all_plans(asked, arguments)
    if asked.json:
        print(json.dumps(plans if asked.multirun else plans[0], indent=2))
    else:
        _print(plans)
    return 0


def _all_plans(asked: argparse.Namespace, arguments: list[str]) -> list[dict[str, Any]]:
    """The plan of every job; with stand-ins for slow packages first, and again without where those do not do."""
    import_stubs.use()
    try:
        folders = compose.config_folders(asked.config_dir)
        overrides = compose.rewritten(asked.overrides, folders)
        with compose.hydra_session(folders):
            return list(_plans(overrides, asked.multirun, folders))
    except Exception:
        if import_stubs.used():
            import_stubs.start_over(["plan", *arguments])
        raise


def _plans(overrides: Sequence[str], multirun: bool, folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for job in compose.expanded(overrides) if multirun else [list(overrides)]:
        cfg, stage = compose.composed(job)
        yield _described(
            compose.check(replaced.drop_settings_of_replaced(cfg, job, folders), stage),
            [o.removeprefix("++") for o in job],
        )


def _described(experiment: compose.Experiment, overrides: Sequence[str]) -> dict[str, Any]:
    whole = experiment.config
    runtime = Builder().build(whole["runtime"], "runtime")
    steps = plan(experiment.pipeline, runtime)
    store = Store(Path(whole["store_dir"]))
    about = {key: _scalars(whole[key]) for key in ("data", "model", "tokenizer") if whole.get(key)}
    return {
        "name": experiment.name,
        "overrides": list(overrides),
        "store": str(store.root),
        "made_of": about,
        "stages": [_stage(step, store) for step in steps],
    }


def _stage(step: Step, store: Store) -> dict[str, Any]:
    return {
        "name": step.name,
        "stage": step.stage.__name__,
        "inputs": dict(step.inputs),
        "makes": step.stage.PRODUCES,
        "sizes": _sizes(step.config),
        "fingerprint": step.fingerprint,
        "cached": store.has(step.fingerprint),
    }


def _scalars(node: Mapping[str, Any]) -> dict[str, Any]:
    """What is set in a node, its class and nested nodes left out."""
    return {k: v for k, v in node.items() if isinstance(v, str | int | float) and k != TARGET}


def _sizes(node: Mapping[str, Any]) -> dict[str, Any]:
    """The whole numbers of a node and of its loop: steps, batch size, pairs."""
    own = {k: v for k, v in node.items() if type(v) is int and k not in NOT_SIZES}
    loop = node.get("loop")
    return {k: loop[k] for k in ("steps", "batch_size") if k in loop} | own if isinstance(loop, Mapping) else own


# ---- printing --------------------------------------------------------------------------------------------------------
def _print(plans: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for found in plans:
        title = f"{found['name']}  {' '.join(found['overrides'])}"
        console.print(Text(title, style="bold"), soft_wrap=True)
        for key, sizes in found["made_of"].items():
            console.print(Text(f"  {key}: {_row(sizes)}"), soft_wrap=True)
        console.print(_table(found["stages"]))
        missing, total = sum(not s["cached"] for s in found["stages"]), len(found["stages"])
        console.print(Text(f"{missing} of {total} stages would run; store: {found['store']}"), soft_wrap=True)


def _table(stages: Sequence[Mapping[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("stage", "takes", "makes", "sizes", "key", ""):
        table.add_column(head, no_wrap=head not in ("stage", "takes", "sizes"), overflow="fold")
    for stage in stages:
        inputs = stage["inputs"]
        takes = "all" if len(inputs) > 3 and all(k == v for k, v in inputs.items()) else ", ".join(inputs.values())
        state = Text("cached", style="green") if stage["cached"] else Text("will run", style="yellow")
        cells = (stage["name"], takes, stage["makes"], _size(stage["sizes"]), stage["fingerprint"][:8])
        table.add_row(*map(Text, cells), state)
    return table


def _row(content: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in content.items())


def _size(sizes: Mapping[str, Any]) -> str:
    """The headline of a stage's sizes: `300 steps of 16`, or `pairs=2400`; `--json` has all of them."""
    if {"steps", "batch_size"} <= sizes.keys():
        return f"{sizes['steps']} steps of {sizes['batch_size']}"
    return _row(dict(list(sizes.items())[:1]))
