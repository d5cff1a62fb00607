"""Telling recorders of a run and of its stages, and keeping their answers in manifests."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alignlab.artifact import Artifact, fingerprint
from alignlab.config.spec import Spec
from alignlab.pipeline.plan import Step
from alignlab.pipeline.run_folder import RunFolder
from alignlab.sanitize import printable
from alignlab.tracking import Given, Made, Origin, StageInfo, Tracking

RECORDED: Final = "recorded"
"""Entry of an artifact's manifest: by recorder, where its making was recorded."""
TO_SEND: Final = "to_send"
"""Entry of a run's `status.json`: commands that send what recorders kept on this machine, one per line."""
LONGEST: Final = 500
"""Characters of an entry that are taken from a manifest, which somebody else may have written."""


@contextmanager
def recorded(tracking: Tracking | None, origin: Origin, folder: RunFolder) -> Iterator[None]:
    """Record a run. What is to be sent later is noted in its status, however it ends."""
    if tracking is None:
        yield
        return
    with tracking.run(dataclasses.replace(origin, folder=folder.path)):
        try:
            yield
        finally:
            if commands := tracking.to_send():
                folder.marks[TO_SEND] = "\n".join(commands)


def describe(step: Step, folder: Path, path: Path) -> StageInfo:
    """A stage for recorders.

    Args:
        step: the stage.
        folder: where its artifact is written, or lies.
        path: where its artifact is found in the end.
    """
    found = step.spec.arguments.get("data")
    data = found if isinstance(found, Spec) else None
    return StageInfo(
        name=step.name,
        fingerprint=step.fingerprint,
        kind=step.spec.cls.PRODUCES,
        folder=folder,
        path=path,
        config=step.spec.redacted(),
        inputs={name: Given(source, step.input_fingerprints[name]) for name, source in step.inputs.items()},
        data=data.redacted() if data else {},
        data_digest=fingerprint(data.identity(step.builder)) if data else "",
    )


def made_of(artifact: Artifact) -> dict[str, Made]:
    """By recorder, where the making of an artifact was recorded; empty where its manifest does not say."""
    found: Any = artifact.manifest.get(RECORDED)
    entries = found.items() if isinstance(found, Mapping) else ()
    return {str(name): _plain(made) for name, made in entries if isinstance(made, Mapping)}


def _plain(made: Mapping[Any, Any]) -> Made:
    return {str(k): printable(v, LONGEST) for k, v in made.items() if isinstance(v, str)}
