"""Tab completion: what Hydra completes, and verbs where the first word is being typed."""

import os
from collections.abc import Sequence

from alignlab.verbs import VERBS


def print_verbs(request: Sequence[str]) -> None:
    """Print the verbs that fit, where the shell asks for the first word; Hydra prints its own completions after.

    Args:
        request: the words after `-sc`: `query=bash`, `install=bash`, ...
    """
    line = os.environ.get("COMP_LINE", "")
    if not any(r.startswith("query=") for r in request) or len(line.split()) > 1 + (not line.endswith(" ")):
        return
    typed = "" if line.endswith(" ") else line.split()[-1]
    fitting = [v for v in VERBS if v.startswith(typed)]
    if fitting:
        print("\n".join(fitting))
