"""Tab completion: verbs, and options where a group is mounted; all else is Hydra's to complete."""

import os
from collections.abc import Sequence

from alignlab.cli.commands import VERBS
from alignlab.config import plugins


def handled(request: Sequence[str]) -> bool:
    """Print what fits the word that is being typed; whether that is all there is to say.

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
    if len(words) == 1 and (fitting := [v for v in VERBS if v.startswith(typed)]):
        print("\n".join(fitting))
    if options := _options(typed):
        print("\n".join(options))
        return True
    if len(words) > 1 and words[1] in VERBS:
        if words[1] != "plan":
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
    names = plugins.catalog(plugins.options()).get(group, [])
    return [f"{key}={name}" for name in names if name.startswith(value)]
