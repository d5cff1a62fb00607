"""Errors whose message is all that a user needs.

The command prints such an error as one line, without a traceback, and exits with 1. A message names the owner,
the rule, the value and what to do. Whatever is *not* one of these is a bug, and its traceback is shown.
"""

import difflib
from collections.abc import Sequence


class AlignlabError(Exception):
    """Base of every error that a user can fix without reading our code."""


class ConfigError(AlignlabError, ValueError):
    """A key, value, option or `_target_` of the configuration is wrong."""


class DataError(AlignlabError, ValueError):
    """A file or record cannot be used; the message names file and line."""


class MissingDataError(DataError):
    """A data source has no records of the kind that was asked for: no file was named."""


class PipelineError(AlignlabError, ValueError):
    """Stages do not fit together: a missing input, a cycle, an artifact of the wrong kind."""


class StoreError(AlignlabError):
    """An artifact is missing, incomplete or damaged."""


class NonFiniteError(AlignlabError, ArithmeticError):
    """A loss or gradient is NaN or infinite; raised before the optimizer step.

    Args:
        message: what, where, and what to do.
        weights_are_good: the weights are those of the step before, and worth keeping.
    """

    def __init__(self, message: str, weights_are_good: bool = False) -> None:
        super().__init__(message)
        self.weights_are_good = weights_are_good


class Pruned(AlignlabError):
    """A study ended a stage early, because its validations were poorer than those of other trials; no failure."""


class Preempted(BaseException):
    """The process was asked to stop; what was done so far is kept. No `except Exception` may swallow it.

    Args:
        message: why.
        code: the process's exit code: 143 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, message: str, code: int = 143) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["Preempted"], tuple[str, int]]:
        return Preempted, (str(self), self.code)


def suggestion(name: str, known: Sequence[str]) -> str:
    """The end of a message on an unknown name: `; did you mean X?`, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
