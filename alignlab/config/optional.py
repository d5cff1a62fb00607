"""Stages that an experiment has only where something is given: `only_with: ${data.instructions}`.

Where it is null (or empty), the stage is left out, and what takes it takes the stage's own input `policy` instead.
"""

from typing import Any, Final

from alignlab.errors import ConfigError

KEY: Final = "only_with"


def leave_out(pipeline: dict[str, Any]) -> None:
    """Take the stages out of a resolved pipeline, in place, whose `only_with` is not given, and the key out of all.

    Raises:
        ConfigError: a stage that is left out has no `policy` to take in its place.
    """
    conditions = {name: node.pop(KEY) for name, node in pipeline.items() if isinstance(node, dict) and KEY in node}
    gone = {name: pipeline.pop(name) for name, given in conditions.items() if not given}
    for name, node in pipeline.items():
        inputs = (node.get("inputs") or {}) if isinstance(node, dict) else {}
        for key, source in inputs.items():
            while source in gone:
                source = _instead(gone[source], source, f"pipeline.{name}.inputs.{key}")
            inputs[key] = source


def _instead(node: dict[str, Any], stage: str, path: str) -> str:
    before = (node.get("inputs") or {}).get("policy")
    if not before:
        raise ConfigError(f"{path}: the stage {stage} is left out, since its {KEY} is not given, and it has no policy")
    return str(before)
