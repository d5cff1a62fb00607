"""The end of a study: the best trial, the command that runs it again, and `study.yaml` in the sweep's folder."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from alignlab.cli.search.settings import text
from alignlab.cli.search.trials import FIXED, Trials
from alignlab.sanitize import printable, redact_override

FILE: Final = "study.yaml"
NOT_OF_A_RUN: Final = ("sweep.", "hydra.", "hydra/")
"""Beginnings of overrides that say how to sweep, not what to run."""


def show(trials: Trials, metric: str, folder: Path, flags: Sequence[str] = ()) -> None:
    """Print what was found, and write it.

    Args:
        trials: of the study.
        metric: that was optimised.
        folder: of the sweep.
        flags: of the command (`--config-dir FOLDER`).
    """
    import yaml

    found = _found(trials, metric, flags)
    (folder / FILE).write_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), encoding="utf-8")
    count = found["trials"]
    print(f"trials: {', '.join(f'{number} {state}' for state, number in count.items() if number)}")
    if (best := found["best"]) is None:
        print("no trial has completed, so there is no best one")
    else:
        print(f"best: trial {best['trial']}, {metric} {best['value']:.6g} ({trials.settings.direction}d)")
        for override in best["overrides"]:
            print(f"  {printable(override)}")
        print(f"again: {printable(best['command'])}")
    print(f"study: {folder / FILE}", flush=True)


def _found(trials: Trials, metric: str, flags: Sequence[str]) -> dict[str, Any]:
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
    settings = trials.settings
    return {
        "metric": metric,
        "direction": settings.direction,
        "sampler": settings.sampler,
        "pruner": settings.pruner,
        "seed": settings.seed,
        "storage": trials.storage,
        "study_name": settings.study_name,
        "trials": {name: trials.count(state) for name, state in states.items()},
        "best": _best(trials, flags),
    }


def _best(trials: Trials, flags: Sequence[str]) -> dict[str, Any] | None:
    best = trials.best()
    if best is None:
        return None
    known = [p for p in trials.space.parameters if p.key in best.params]  # it may be older than some of them
    chosen = [p.override(text(p, best.params[p.key])) for p in known]
    typed = best.user_attrs.get(FIXED, trials.space.fixed)
    fixed = [redact_override(o) for o in typed if not o.startswith(NOT_OF_A_RUN)]
    value = best.value
    assert value is not None
    return {
        "trial": best.number,
        "value": float(value),
        "overrides": chosen,
        "command": shlex.join(["alignlab", *flags, *fixed, *chosen]),
    }
