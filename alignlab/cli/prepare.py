"""`alignlab prepare [-m] experiment=... [KEY=VALUE ...] [--until STAGE] [--json]`: compute what jobs share beforehand.

Jobs of a sweep that hold GPUs then find in the store what they would otherwise wait for. It has the arguments of the
sweep, takes the same store, and makes what more than one job needs; of a single run, what comes before its last model.
Of stages that differ, it makes the part that they share (the pass of a reference), on this machine's kind of device.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from alignlab import stopping
from alignlab.cli.arguments import Parser
from alignlab.cli.launch import recorded_config
from alignlab.cli.planned import Planned, planning, read_request
from alignlab.cli.prepared import shown
from alignlab.errors import Preempted
from alignlab.pipeline import provenance
from alignlab.pipeline.plan import Step
from alignlab.pipeline.reserve import reserve
from alignlab.pipeline.run_folder import RunFolder
from alignlab.pipeline.runner import Runner
from alignlab.pipeline.sharing import ancestors, before_part, shared, shared_parts
from alignlab.pipeline.store import Store
from alignlab.sanitize import redact_text
from alignlab.tracking import Origin

EXAMPLES: Final = """\
examples
  alignlab prepare -m experiment=lifecycle pipeline.dpo.objective.beta=0.05,0.1,0.2   on one machine, then
  alignlab -m experiment=lifecycle pipeline.dpo.objective.beta=0.05,0.1,0.2 hydra/launcher=...
  alignlab prepare experiment=lifecycle                what comes before the last model of one run
  alignlab prepare experiment=lifecycle --until dpo    what dpo comes from, without dpo
"""


@dataclass(frozen=True)
class Part:
    """The stages of one job that are to be made.

    Args:
        job: that they were planned for.
        steps: not in the store yet, or all of them where they are to run again.
        parts: of which only the part that jobs share is to be made.
        with_inputs: these, and the stages that they come from, in order.
    """

    job: Planned
    steps: Sequence[Step]
    parts: Sequence[Step]
    with_inputs: Sequence[Step]


def run(arguments: list[str]) -> int:
    """Compute what is shared; exit code."""
    config, arguments = recorded_config(arguments)
    parser = Parser(
        "alignlab prepare",
        description="Compute what the jobs of a sweep share, before they start.",
        examples=EXAMPLES,
    )
    parser.add_argument("--until", metavar="STAGE", help="only what this stage comes from")
    asked = read_request(parser, arguments)
    with planning(asked, config) as found:
        jobs = list(found)
    common = shared([job.prepared.steps for job in jobs], asked.until)
    store = Store(jobs[0].prepared.experiment.store)
    in_part = shared_parts([job.prepared.steps for job in jobs], partial(_is_missing, store), asked.until)
    todo = [_part(job, steps, parts) for job, steps, parts in zip(jobs, common, in_part, strict=True)]
    parts = [part for part in todo if part.steps or part.parts]
    folder = None
    with contextlib.redirect_stdout(None) if asked.json else contextlib.nullcontext():
        if parts:
            folder = _make(parts)
    _report(jobs, common, parts, folder, asked.json)
    return 0


def _is_missing(store: Store, step: Step) -> bool:
    return step.again or not store.has(step.fingerprint)


def _part(job: Planned, steps: Sequence[Step], in_part: Sequence[Step]) -> Part:
    store, all_steps = Store(job.prepared.experiment.store), job.prepared.steps
    missing = [step for step in steps if _is_missing(store, step)]
    whole = {step.name for step in missing}
    parts = [s for s in in_part if s.name not in whole and (s.again or not store.has_shared(s.shared_recipe))]
    needed = whole.union(*(ancestors(all_steps, name) for name in whole), *(before_part(all_steps, s) for s in parts))
    needed |= {step.name for step in parts}
    return Part(job, missing, parts, [step for step in all_steps if step.name in needed])


def _make(parts: Sequence[Part]) -> Path:
    """Run the parts, each with a folder of its own in the one that is returned."""
    usual = parts[0].job.folder.absolute()
    with reserve(usual.with_name(f"{usual.name}-prepare"), is_fixed=False) as folder:
        began = time.time()
        for number, part in enumerate(parts):
            _run(part, folder / str(number) if len(parts) > 1 else folder, began)
    return folder


def _run(part: Part, path: Path, began: float) -> None:
    """Run the stages of one job that are shared, as a run of its own."""
    prepared, overrides = part.job.prepared, shown(part.job.overrides)
    asked, name = prepared.experiment, redact_text(prepared.experiment.name)
    about = {"name": name, "seed": asked.seed, "overrides": overrides, "prepares": [s.name for s in part.steps]}
    folder = RunFolder(path, {**about, **provenance.of_now()})
    with _ended(folder), stopping.heard():
        folder.status("running")
        folder.config(asked.recorded())
        prepared.tracking.prepare()
        origin = Origin(name, f"{name}/{'-'.join(path.parts[-2:])}", None, asked.redacted(), overrides)
        store = Store(asked.store)
        how, parts = (prepared.runtime, prepared.tracking, origin, began), [step.name for step in part.parts]
        Runner(part.with_inputs, store, folder, *how, parts=parts).run()


@contextlib.contextmanager
def _ended(folder: RunFolder) -> Iterator[None]:
    """Write into the folder how it ended."""
    try:
        yield
    except Preempted as error:
        folder.status("preempted", error=redact_text(str(error)))
        raise
    except Exception as error:
        folder.status("failed", error=redact_text(str(error)))
        raise
    folder.status("completed")


def _report(
    jobs: Sequence[Planned], common: Sequence[Sequence[Step]], parts: Sequence[Part], folder: Path | None, as_json: bool
) -> None:
    made = [step.fingerprint for part in parts for step in part.steps]
    steps = [step for steps in common for step in steps]
    in_part = [(step.name, step.shares.name) for part in parts for step in part.parts if step.shares is not None]
    if as_json:
        stages: list[dict[str, Any]] = [
            {"name": s.name, "fingerprint": s.fingerprint, "made": s.fingerprint in made} for s in steps
        ]
        print(
            json.dumps(
                {
                    "jobs": len(jobs),
                    "stages": stages,
                    "parts": [f"{stage}/{name}" for stage, name in in_part],
                    "folder": folder and str(folder),
                },
                indent=2,
            )
        )
        return
    whose = f"{len(jobs)} jobs share" if len(jobs) > 1 else "the run has, before its last model,"
    print(f"{whose} {len(steps)} stages: {len(made)} made now, {len(steps) - len(made)} were in the store")
    for (stage, name), count in Counter(in_part).items():
        print(f"made of {stage}: {name}, which its jobs share" + (f" ({count} times)" if count > 1 else ""))
    if folder is not None:
        print(f"run folder: {folder}")
