"""`alignlab plan [-m] experiment=... [KEY=VALUE ...] [--json]`: the stages, what the store has, and what would run.

Composes and checks the configuration as a run would, makes every fingerprint and asks the store; nothing trains and
nothing is written. Of a stage that would run it says in what it differs from the last one, and how long earlier ones
took. With `-m` it does so for a whole sweep, and shows what its jobs share.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignlab.cli.arguments import Parser
from alignlab.cli.launch import recorded_config
from alignlab.cli.plan_sweep import print_sweep
from alignlab.cli.plan_tree import print_plan
from alignlab.cli.planned import Planned, planning, read_request
from alignlab.cli.prepared import Prepared
from alignlab.config.spec import Spec
from alignlab.errors import StoreError
from alignlab.pipeline.history import Change, History, changed_code
from alignlab.pipeline.plan import Step
from alignlab.pipeline.store import Store
from alignlab.sanitize import redact_override

if TYPE_CHECKING:
    from alignlab.training.footprint import ModelSize

NOT_SIZES = ("seed", "table_rows")
EXAMPLES: Final = """\
states
  cached    the store has it
  missing   it was never made
  stale     one was made before, and differs; the keys that differ are listed
  running   another process makes it at this moment
  rerun     rerun=STAGE asked for it

examples
  alignlab plan experiment=lifecycle
  alignlab plan experiment=lifecycle pipeline.dpo.objective.beta=0.05
  alignlab plan -m experiment=lifecycle seed=0,1,2                     what a sweep shares
  alignlab plan --config RUN/config.yaml
"""


def run(arguments: list[str]) -> int:
    """Print the plan, or JSON; exit code."""
    config, arguments = recorded_config(arguments)
    parser = Parser(
        "alignlab plan",
        description="The stages of an experiment: what the store has, what would run, why, and for how long.",
        examples=EXAMPLES,
    )
    asked = read_request(parser, arguments)
    with planning(asked, config) as jobs:
        plans = list(_described(jobs))
    if asked.json:
        print(json.dumps(plans if asked.multirun else plans[0], indent=2))
    elif asked.multirun:
        print_sweep(plans)
    else:
        print_plan(plans[0])
    return 0


def _described(jobs: Iterable[Planned]) -> Iterator[dict[str, Any]]:
    """The plan of each job; every stage has the number of jobs that need it."""
    planned = list(jobs)
    needed = Counter(step.fingerprint for job in planned for step in job.prepared.steps)
    histories: dict[Path, History] = {}
    for job in planned:
        experiment, store = job.prepared.experiment, Store(job.prepared.experiment.store)
        history = histories.setdefault(store.root, History(store.root))
        made_of = {key: experiment.objects[key] for key in ("data", "model", "tokenizer") if key in experiment.objects}
        yield {
            "name": experiment.name,
            "overrides": [redact_override(text) for text in job.overrides],
            "store": str(store.root),
            "made_of": {key: _scalars(spec) for key, spec in made_of.items()},
            "stages": [
                {**_stage(step, store, job.prepared, history), "jobs": needed[step.fingerprint]}
                for step in job.prepared.steps
            ],
        }


def _stage(step: Step, store: Store, prepared: Prepared, history: History) -> dict[str, Any]:
    cached = store.has(step.fingerprint) and not step.again
    holder = None if cached else store.holder(step.fingerprint)
    why = [] if cached else history.changes(step, prepared.runtime.precision)
    seconds = None if cached else history.seconds(step)
    return {
        "name": step.name,
        "stage": step.stage.__name__,
        "inputs": dict(step.inputs),
        "makes": step.stage.PRODUCES,
        "sizes": _sizes(step.spec),
        "fingerprint": step.fingerprint,
        "cached": cached,
        "state": _state(step, cached, holder, why),
        "running": holder,
        "why": [{"what": change.what, "old": change.old, "new": change.new, "text": str(change)} for change in why],
        "checkpoint": not cached and store.has_work(step.fingerprint),
        "seconds": seconds if seconds is None else round(seconds, 1),
        "changed": changed_code(step, store),
        "shares": _shares(step, store),
        "memory_mb": _memory(step, store, prepared),
    }


def _state(step: Step, cached: bool, holder: Mapping[str, Any] | None, why: Sequence[Change]) -> str:
    """`cached`, `running` (another process makes it), `rerun`, `stale` (an earlier one differs) or `missing`."""
    if cached:
        return "cached"
    if holder is not None:
        return "running"
    return "rerun" if step.again else "stale" if why else "missing"


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
