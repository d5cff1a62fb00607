"""Find the model of a stage of a run, for commands that take one."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from alignlab.artifact import MANIFEST, Artifact, Kind
from alignlab.errors import PipelineError, suggestion
from alignlab.pipeline.run_record import where_is

POLICIES: Final[tuple[Kind, ...]] = ("policy",)
MODELS: Final[tuple[Kind, ...]] = ("policy", "reward_model")


def find_model(run: Path, stage: str | None, kinds: Collection[Kind], use: str) -> Artifact:
    """The model of a stage of a run, or in a folder of its own.

    Args:
        run: a run's folder, or a model's.
        stage: of the run.
        kinds: of artifacts that the command takes.
        use: what can be done with them, for messages: "be talked to".

    Raises:
        PipelineError: there is no such run or stage, the stage did not make a model of these kinds, or the run's
            manifest is damaged.
    """
    if not run.is_dir():
        raise PipelineError(f"no such folder: {run}; RUN is a run folder such as runs/DATE/TIME")
    stages = _stages(run)
    if stages is None:
        if stage is not None:
            raise PipelineError(f"{run} is not a run folder: its {MANIFEST} lists no stages")
        return _checked(Artifact.open(run), kinds, str(run), use)
    in_order = sorted(stages, key=lambda name: stages[name]["order"])
    models = [name for name in in_order if stages[name]["kind"] in kinds]
    if stage is None or stage not in stages:
        what = f"{stage!r} is not a stage of {run}" if stage else f"name a stage of {run}"
        raise PipelineError(f"{what}; models: {', '.join(models)}{suggestion(stage or '', models)}")
    return _checked(
        Artifact.open(where_is(run, stage, stages[stage])), kinds, f"{stage} (take {', '.join(models)})", use
    )


def _stages(run: Path) -> dict[str, Any] | None:
    file = run / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        stages: dict[str, Any] | None = content.get("stages")
        for stage in (stages or {}).values():
            float(stage["order"]), str(stage["kind"])
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise PipelineError(
            f"{file} is not a run's manifest, or is damaged ({type(error).__name__}: {error}); name another run, or "
            f"the folder of the model itself"
        ) from error
    return stages


def _checked(artifact: Artifact, kinds: Collection[Kind], what: str, use: str) -> Artifact:
    if artifact.kind not in kinds:
        raise PipelineError(f"{what} made a {artifact.kind}; only a {' or a '.join(kinds)} can {use}")
    return artifact
