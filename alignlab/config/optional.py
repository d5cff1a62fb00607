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
    for name, node in pipeline.items() if gone else ():
        inputs = _inputs(node)
        for key, source in inputs.items():
            inputs[key] = _instead(gone, source, f"pipeline.{name}.inputs.{key}")


def _inputs(node: Any) -> dict[str, Any]:
    """The inputs of a stage; anything but a mapping is left to the check of its arguments."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _instead(gone: dict[str, Any], source: Any, path: str) -> Any:
    """The source of an input: of a stage that is left out, its own policy, and so on."""
    passed: list[str] = []
    while isinstance(source, str) and source in gone:
        before = _inputs(gone[source]).get("policy")
        if not before or source in passed:
            why = f"the stage {source} is left out, since its {KEY} is not given, and it has no policy"
            raise ConfigError(f"{path}: {why} to take in its place")
        passed.append(source)
        source = before
    return source
