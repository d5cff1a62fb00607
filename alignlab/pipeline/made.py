"""The manifest and the metrics of a stage's artifact."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from alignlab.artifact import Artifact
from alignlab.config.locate import public_path
from alignlab.errors import AlignlabError
from alignlab.pipeline import provenance
from alignlab.pipeline.plan import Step
from alignlab.stage import Stage


def manifest(step: Step, stage: Stage, inputs: Mapping[str, Artifact], seconds: float) -> dict[str, Any]:
    """The manifest of an artifact: the stage that made it, its inputs, and the seconds that it took."""
    cls = type(stage)
    return {
        "kind": cls.PRODUCES,
        "stage": public_path(cls),
        "version": cls.VERSION,
        "code": dict(step.code),
        "name": step.name,
        "inputs": {k: {"from": step.inputs[k], "fingerprint": a.fingerprint} for k, a in inputs.items()},
        "config": step.spec.redacted(),
        "trained_on": _trained_on(inputs.values()),
        "seconds": round(seconds, 3),
        **provenance.of_now(),
    }


def _trained_on(inputs: Iterable[Artifact]) -> list[Any]:
    """Configurations of the data behind a stage's inputs, each once: an evaluation must know a model's own world."""
    found: list[Any] = []
    for node in (node for artifact in inputs for node in artifact.trained_on):
        if node not in found:
            found.append(dict(node))
    return found


def finite(metrics: Mapping[str, float], name: str) -> dict[str, float]:
    """The metrics as plain numbers; a NaN among them is an error of the stage."""
    plain = {k: float(v) for k, v in metrics.items()}
    bad = [k for k, v in plain.items() if not math.isfinite(v)]
    if bad:
        raise AlignlabError(f"{name}: its metrics {', '.join(bad)} are not finite numbers; nothing was published")
    return plain
