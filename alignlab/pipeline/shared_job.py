"""A stage that all processes of a run compute together, as the first one sends it to the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignlab.artifact import Artifact
from alignlab.config.spec import Spec
from alignlab.runtime import Runtime


@dataclass(frozen=True)
class Job:
    """A stage that all processes compute.

    Args:
        name: of the stage.
        spec: of the stage.
        inputs: its artifacts.
        work: its folder that outlives a crash; all processes see it.
        store: root of the store.
        runtime: where to compute.
        fingerprint: of what it will make.
        input_fingerprints: by input.
        code: digest of the code of each of its classes, by public path.
    """

    name: str
    spec: Spec
    inputs: Mapping[str, Artifact]
    work: Path
    store: Path
    runtime: Runtime
    fingerprint: str
    input_fingerprints: Mapping[str, str]
    code: Mapping[str, str]
