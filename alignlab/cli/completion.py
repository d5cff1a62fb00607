"""Tab completion: commands, and options where a group is mounted; the rest is Hydra's to complete."""

import os
from collections.abc import Sequence

from alignlab.cli.commands import COMMANDS
from alignlab.config.options import catalog, options


def handled(request: Sequence[str]) -> bool:
    """Print completions of the word that is being typed; returns whether they are complete without Hydra's.

    Args:
        request: the words after `-sc`: `query=bash`, `install=bash`, ...
    """
    if not any(r.startswith("query=") for r in request):
        return False
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if not words:
        return True
    typed = "" if line.endswith(" ") else words.pop()
    if len(words) == 1 and (fitting := [c for c in COMMANDS if c.startswith(typed)]):
        print("\n".join(fitting))
    if found := _options(typed):
        print("\n".join(found))
        return True
    if len(words) > 1 and words[1] in COMMANDS:
        if words[1] not in ("plan", "prepare"):
            return True  # files, or nothing
        os.environ["COMP_LINE"] = line.replace(f" {words[1]} ", " ", 1)  # what follows is as for a run
    return False


def _options(typed: str) -> list[str]:
    """`pipeline.dpo.objective=` with each option of the group that its last key names."""
    key, equals, value = typed.partition("=")
    if not equals or "." not in key:
        return []
    parts = key.lstrip("+~").split(".")
    group = "stage" if len(parts) == 2 and parts[0] == "pipeline" else parts[-1]
    return [f"{key}={name}" for name in catalog(options()).get(group, []) if name.startswith(value)]
