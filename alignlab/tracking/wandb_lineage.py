"""W&B artifacts that mirror what was made of what: data, models, evaluations.

The truth is in the store's manifests. At W&B an artifact is a name, a description and a small file that says what it
was made of; its own files are sent only where the user asks for it.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from alignlab.sanitize import redact_text
from alignlab.tracking.process import say
from alignlab.tracking.recorder import StageInfo

if TYPE_CHECKING:
    import wandb

TYPES: Final[Mapping[str, str]] = {
    "policy": "model",
    "reward_model": "model",
    "preferences": "dataset",
    "rankings": "dataset",
    "answers": "dataset",
}
"""W&B's type of an artifact, by its kind; of all others it is the kind itself."""

ABOUT: Final = "alignlab.json"
_LEFT_OUT: list[object] = []
"""Artifacts that W&B did not have, in this process."""


def name_of(kind: str, fingerprint: str) -> str:
    """Name of an artifact at W&B: the same for everybody who makes the same."""
    return f"{kind}-{fingerprint[:32]}"


def made(stage: StageInfo, metrics: Mapping[str, float], upload: bool) -> "wandb.Artifact":
    """The artifact that a stage has made.

    Args:
        stage: that is done; its folder is not published yet.
        metrics: that it ended with.
        upload: send its files, too.
    """
    import wandb

    inputs = {name: {"from": given.source, "fingerprint": given.fingerprint} for name, given in stage.inputs.items()}
    about = {"stage": stage.name, "kind": stage.kind, "fingerprint": stage.fingerprint, "inputs": inputs}
    further = {"metrics": dict(metrics), "folder": str(stage.path), "config": dict(stage.config)}
    name = name_of(stage.kind, stage.fingerprint)
    found = wandb.Artifact(name, TYPES.get(stage.kind, stage.kind), metadata={**about, **further})
    with found.new_file(ABOUT) as stream:  # without metrics and folder: the same artifact is the same version
        json.dump(about, stream, indent=2, sort_keys=True)
    if upload:
        found.add_dir(str(stage.folder))
    return found


def use(run: Any, stage: StageInfo) -> None:
    """Say what an online run takes: the artifacts of its inputs, and its data.

    Something that W&B does not have (its maker's run was never sent) is named once and left out; the manifests have it.
    """
    for given in stage.inputs.values():
        _use(run, given.made_by.get("artifact", ""))
    if stage.data_digest:
        _use(run, _data(stage))


def use_made(run: Any, stage: StageInfo) -> None:
    """Say that an online run takes a stage out of the store."""
    _use(run, stage.made_by.get("artifact", ""))


def _data(stage: StageInfo) -> "wandb.Artifact":
    import wandb

    return wandb.Artifact(name_of("data", stage.data_digest), "dataset", metadata=dict(stage.data))


def _use(run: Any, artifact: "str | wandb.Artifact") -> None:
    if not artifact:
        return
    try:
        run.use_artifact(f"{artifact}:latest" if isinstance(artifact, str) else artifact)
    except Exception as error:  # of wandb's many: not found, no permission, no network
        if not _LEFT_OUT:
            reason = redact_text(f"{type(error).__name__}: {error}")
            say(
                f"W&B shows no link to {artifact if isinstance(artifact, str) else artifact.name}, since it is not "
                f"there or cannot be read; send the run that made it first (wandb sync). The store's manifests name "
                f"what was used. ({reason}; said once)"
            )
        _LEFT_OUT.append(artifact)
