"""Instruction following that can be checked without a model: the 25 kinds of IFEval, strict and loose.

The kinds have the ids and arguments of the public data set, and the verdicts are meant to be those of its public code,
quirks included.

Source: Zhou et al. 2023, arXiv:2311.07911.
"""

from alignlab.instructions.accuracy import Accuracy, accuracies
from alignlab.instructions.base import Instruction, Relation
from alignlab.instructions.kinds import KINDS, instruction
from alignlab.instructions.tasks import Task, read_tasks
from alignlab.instructions.verdicts import Verdicts, readings, verdicts

__all__ = [
    "KINDS",
    "Accuracy",
    "Instruction",
    "Relation",
    "Task",
    "Verdicts",
    "accuracies",
    "instruction",
    "read_tasks",
    "readings",
    "verdicts",
]
