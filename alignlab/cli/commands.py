"""The verbs of the command: `alignlab VERB ...`. Each module has `run(arguments) -> exit code` and a docstring."""

import importlib
from collections.abc import Sequence
from typing import Final

VERBS: Final = {
    "chat": "talk to a stage's model in the terminal: chat RUN STAGE",
    "plan": "the stages of an experiment, their inputs and sizes, and what would run: plan experiment=...",
    "plugins": "what is installed, from which package, with each option's parameters: plugins [NAME ...]",
}
"""Name and one line of each verb; the module of that name in this package runs it."""


def run(verb: str, arguments: Sequence[str]) -> int:
    """Run a verb; its exit code."""
    module = importlib.import_module(f"alignlab.cli.{verb}")
    return int(module.run(list(arguments)))
