"""`alignlab plan experiment=... [KEY=VALUE ...] [--json]`: the stages, their inputs and sizes, and what would run.

Composes and checks the configuration as a run would, makes every fingerprint and asks the store; nothing trains and
nothing is written. With `-m` it does so for every job of the sweep.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.cli.arguments import Parser, check_flags
from alignlab.cli.job import Prepared, prepare
from alignlab.cli.launch import config_folders, recorded_config
from alignlab.config.compose import Session, session
from alignlab.config.grammar import parse
from alignlab.config.recorded import recorded_root
from alignlab.config.spec import Spec
from alignlab.errors import StoreError
from alignlab.pipeline.plan import Step
from alignlab.pipeline.runner import changed_code
from alignlab.pipeline.store import Store
from alignlab.sanitize import redact_override

if TYPE_CHECKING:
    from alignlab.training.footprint import ModelSize

NOT_SIZES = ("seed", "table_rows")


def run(arguments: list[str]) -> int:
    """Print the plan, or JSON; exit code."""
    config, arguments = recorded_config(arguments)
    parser = Parser("alignlab plan", description="What an experiment would run.")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for a run: experiment=lifecycle ...")
    parser.add_argument("-m", "--multirun", action="store_true", help="every job of a sweep")
    parser.add_argument("--config-dir", "-cd", help="a folder of your own options")
    parser.add_argument("--json", action="store_true", help="print JSON")
    check_flags(arguments)
    asked = parser.parse_intermixed_args(arguments)
    with (
        recorded_root(config, asked.overrides) as root,
        session(asked.overrides, config_folders(asked.config_dir), root) as hydra,
    ):
        plans = list(_plans(hydra, asked.overrides, asked.multirun))
    if asked.json:
        print(json.dumps(plans if asked.multirun else plans[0], indent=2))
    else:
        _print(plans)
    return 0


def _plans(hydra: Session, overrides: Sequence[str], multirun: bool) -> Iterator[dict[str, Any]]:
    """The plan of every job."""
    parsed = parse(overrides)
    typed, own = [p.input_line for p in parsed], [p.input_line for p in parsed if p.is_hydra_override()]
    for job in hydra.expanded(typed) if multirun else [typed]:
        yield _described(hydra, job, own if multirun else [])


def _described(hydra: Session, overrides: Sequence[str], own: Sequence[str]) -> dict[str, Any]:
    """The plan of one job; `own` are the command's overrides of Hydra's section."""
    prepared = prepare(hydra.compose([*own, *overrides]), overrides)
    experiment, store = prepared.experiment, Store(prepared.experiment.store)
    made_of = {key: experiment.objects[key] for key in ("data", "model", "tokenizer") if key in experiment.objects}
    return {
        "name": experiment.name,
        "overrides": [redact_override(text) for text in overrides],
        "store": str(store.root),
        "made_of": {key: _scalars(spec) for key, spec in made_of.items()},
        "stages": [_stage(step, store, prepared) for step in prepared.steps],
    }


def _stage(step: Step, store: Store, prepared: Prepared) -> dict[str, Any]:
    return {
        "name": step.name,
        "stage": step.stage.__name__,
        "inputs": dict(step.inputs),
        "makes": step.stage.PRODUCES,
        "sizes": _sizes(step.spec),
        "fingerprint": step.fingerprint,
        "cached": store.has(step.fingerprint) and not step.again,
        "changed": changed_code(step, store),
        "shares": _shares(step, store),
        "memory_mb": _memory(step, store, prepared),
    }


def _memory(step: Step, store: Store, prepared: Prepared) -> int | None:
    """MiB that a training stage is expected to take; None where the size of its model is not known yet."""
    if not getattr(step.stage, "TRAINS", False):
        return None
    from alignlab.training.footprint import footprint

    size = _size_of_model(step, store, {s.name: s for s in prepared.steps})
    if size is None:
        return None
    return round(footprint(step.stage, step.spec.arguments, size, prepared.runtime).bytes / 2**20)


def _size_of_model(step: Step, store: Store, steps: Mapping[str, Step]) -> "ModelSize | None":
    """Of the policy that a stage begins with: of the first folder on the way back that has one."""
    from alignlab.training.footprint import ModelSize

    source = step.inputs.get("policy")
    if source is None:
        return None
    folder: Path | None = Path(source)
    if source in step.from_stages:
        before = steps[source]
        named = before.spec.arguments.get("name_or_path")
        known = store.path(before.fingerprint) if store.has(before.fingerprint) else None
        folder = known if known or named is None else Path(str(named))
        if folder is None:
            return _size_of_model(before, store, steps)
    try:
        return ModelSize.of(folder) if folder is not None else None
    except (StoreError, OSError):
        return None  # the run will say what is wrong with it


def _shares(step: Step, store: Store) -> dict[str, Any] | None:
    """The part of a stage's work that runs share, and whether it is known to be in the store."""
    if step.shares is None:
        return None
    inputs = {name: source for name, source in step.inputs.items() if name in step.shares.inputs}
    cached = store.has(step.fingerprint) or store.has_shared(step.shared_recipe)
    return {
        "name": step.shares.name,
        "inputs": inputs,
        "recipe": step.shared_recipe,
        "cached": cached and not step.again,
    }


def _scalars(spec: Spec) -> dict[str, Any]:
    """Numbers, texts and switches among the arguments of an object."""
    return {k: v for k, v in spec.redacted().items() if isinstance(v, str | int | float) and k != "_target_"}


def _sizes(spec: Spec) -> dict[str, Any]:
    """The whole numbers of a stage and of its loop: steps, batch size, pairs."""
    own = {k: v for k, v in spec.arguments.items() if type(v) is int and k not in NOT_SIZES}
    loop = spec.arguments.get("loop")
    found = loop.arguments if isinstance(loop, Spec) else {}
    return {k: found[k] for k in ("steps", "batch_size") if k in found} | own


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
        _print_stages(found["stages"], console)
        for stage in found["stages"]:
            if stage["changed"]:
                text = f"{stage['name']}: the code of {', '.join(stage['changed'])} has changed since it last ran"
                console.print(Text(text), soft_wrap=True)
        missing, total = sum(not s["cached"] for s in found["stages"]), len(found["stages"])
        console.print(Text(f"{missing} of {total} stages would run; store: {found['store']}"), soft_wrap=True)


def _print_stages(stages: Sequence[Mapping[str, Any]], console: Any) -> None:
    """A table of one line per stage, or two where it takes many: columns are left out, the least important first."""
    from rich.table import Table
    from rich.text import Text

    rows = [row for stage in stages for row in _rows(stage)]
    heads = [head for head in rows[0] if head != "memory" or any(row["memory"] for row in rows)]
    parts = {h: [w for row in rows for w in (row[h].split() if h == "takes" else [row[h]])] for h in heads}
    words = {h: max(map(len, [h, *parts[h]])) for h in heads}
    for dropped in ("key", "makes", "memory", "sizes", "takes"):
        if dropped in heads and sum(words[h] + 2 for h in heads) > console.width + 2:
            heads.remove(dropped)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in heads:
        table.add_column(head, min_width=words[head], no_wrap=head != "takes")
    for row in rows:
        style = "green" if row["state"] == "cached" else "yellow"
        table.add_row(*(Text(row[head], style=style if head == "state" else "") for head in heads))
    console.print(table, soft_wrap=len(heads) == 2)


def _rows(stage: Mapping[str, Any]) -> list[dict[str, str]]:
    """The row of a stage, and below it that of the part of its work that runs share."""
    if stage["shares"] is None:
        return [_cells(stage)]
    shared = stage["shares"]
    part = {
        **shared,
        "name": f"  {shared['name']}",
        "makes": "logp",
        "sizes": {},
        "memory_mb": None,
        "fingerprint": shared["recipe"],
    }
    return [_cells(stage), _cells(part)]


def _cells(stage: Mapping[str, Any]) -> dict[str, str]:
    """Text of each column for one stage."""
    inputs = stage["inputs"]
    takes = "all" if len(inputs) > 3 and all(k == v for k, v in inputs.items()) else ", ".join(inputs.values())
    return {
        "stage": stage["name"],
        "takes": takes,
        "makes": stage["makes"],
        "sizes": _size(stage["sizes"]),
        "memory": _amount(stage.get("memory_mb")),
        "key": stage["fingerprint"][:8],
        "state": "cached" if stage["cached"] else "will run",
    }


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
