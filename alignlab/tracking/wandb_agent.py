"""Runs that an agent of a W&B sweep starts: the command of its YAML, with the values that the sweep chose.

The agent names one run by `WANDB_RUN_ID` and looks for its metric there. `wandb.init` would give that id to each of
our runs. So the environment is read once and hidden while a run is opened; the agent's run is one of its own, with the
metrics of the whole run, next to those of the stages.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

HIDDEN: Final = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


@dataclass(frozen=True)
class Agent:
    """The environment that an agent makes for a run.

    Args:
        sweep: id of the sweep.
        run: id of the run that it looks at.
        parameters: file with the values that the sweep chose; empty if there is none.
        project, entity: of the sweep; empty where they are not set.
    """

    sweep: str
    run: str
    parameters: str = ""
    project: str = ""
    entity: str = ""


def found() -> Agent | None:
    """The agent that started this process; None outside of a W&B sweep."""
    sweep, run = (os.environ.get(name, "") for name in HIDDEN[:2])
    names = ("WANDB_SWEEP_PARAM_PATH", "WANDB_PROJECT", "WANDB_ENTITY")
    return Agent(sweep, run, *(os.environ.get(name, "") for name in names)) if sweep and run else None


@contextmanager
def hidden() -> Iterator[None]:
    """Without the agent's variables, so that a run keeps the id and the project that it is given."""
    kept = {name: os.environ.pop(name) for name in HIDDEN if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
