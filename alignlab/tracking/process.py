"""The process that reports, and how it speaks to the reader."""

import sys

from alignlab import launched


def say(text: str) -> None:
    """Print one line for the reader."""
    from alignlab.tracking import terminal

    terminal.say(text)


def is_first_process() -> bool:
    """Whether this is the process that reports; processes may have been launched (torchrun) or spawned."""
    own = launched.place()
    if own is not None and own.rank > 0:
        return False
    if "torch" not in sys.modules:
        return True
    from alignlab import distributed

    return distributed.rank() == 0
