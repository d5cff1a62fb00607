"""The commands: `alignlab COMMAND ...`. Each module has `run(arguments) -> exit code` and a docstring."""

import importlib
from collections.abc import Sequence
from typing import Final

from alignlab.errors import ConfigError, suggestion

COMMANDS: Final = {
    "agreement": "how far raters agree, and what they lean to: agreement FILE [--json]",
    "chat": "talk to a stage's model in the terminal: chat RUN STAGE",
    "compare": "in what runs differ: configuration, then metrics with seeds averaged: compare RUN RUN ...",
    "doctor": "whether this machine is ready: versions, GPU, locks, disk, W&B: doctor",
    "export": "the model of a stage as a folder for other programs: export RUN STAGE FOLDER [--merge]",
    "gc": "remove from the store what no run needs; lists only, unless told to delete: gc [--delete]",
    "plan": "the stages of an experiment: what is cached, what would run and why: plan [-m] experiment=...",
    "plugins": "installed packages and their options; with parameters for one of them: plugins [NAME ...]",
    "prepare": "compute what the jobs of a sweep share, before they start: prepare -m experiment=...",
    "report": "one page that compares several runs or those of a sweep: report RUN RUN ... [--out FILE]",
    "runs": "runs and sweeps with their status, changes and metrics: runs [FOLDER]",
    "score": "whether responses follow the instructions of their prompts: score FILE --out SCORED",
    "verify": "where methods end, against the optimum that each declares: verify objective=NAME, verify --all",
}
"""Name and one line of each command; the module of that name in this package runs it."""


def check(word: str) -> None:
    """Refuse a word that is not a command.

    Raises:
        ConfigError: it says what was more likely meant.
    """
    if word not in COMMANDS:
        raise ConfigError(f"unknown command {word!r} (commands: {', '.join(COMMANDS)}){_meant(word)}")


def _meant(word: str) -> str:
    from alignlab.config.options import catalog, options

    groups = catalog(options())
    if word in groups.get("experiment", ()):
        return f"; an experiment is run by experiment={word}"
    if word in groups.get("stage", ()):
        return f"; a single stage is run by experiment=train stage={word}"
    return suggestion(word, [*COMMANDS]) or "; an experiment is run by experiment=NAME"


def run(command: str, arguments: Sequence[str]) -> int:
    """Run a command; its exit code."""
    module = importlib.import_module(f"alignlab.cli.{command}")
    return int(module.run(list(arguments)))
