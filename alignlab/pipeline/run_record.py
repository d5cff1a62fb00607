"""A run as its folder tells it, for those who come later: how it stands, when, and where its artifacts are now."""

import contextlib
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from alignlab.artifact import MANIFEST, METRICS, lost
from alignlab.errors import StoreError
from alignlab.pipeline.run_folder import STAGES, STATUS, read_status, status_of

DEAD: Final = "dead"


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Args:
        folder: of the run.
        status: completed, failed, preempted, running, dead (its process is gone), or unreadable.
        about: its `manifest.json`.
        marks: its `status.json`.
        metrics: by "stage/metric".
    """

    folder: Path
    status: str
    about: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Read what there is; a damaged file leaves its part empty."""
        metrics = {k: float(v) for k, v in _read(folder / METRICS).items() if isinstance(v, int | float)}
        return cls(folder, read_status(folder), _read(folder / MANIFEST), status_of(folder), metrics)

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.about.get("name") or "")

    @property
    def overrides(self) -> list[str]:
        """Overrides as typed, without secrets."""
        return [str(text) for text in self.about.get("overrides") or ()]

    def value(self, key: str) -> str:
        """The value that was typed for a key; empty where there was none."""
        return next((text.partition("=")[2] for text in self.overrides if text.partition("=")[0] == key), "")

    @property
    def sweep(self) -> str:
        """Id of its sweep; empty for a run of its own."""
        return str(self.marks.get("sweep") or "")

    @property
    def job(self) -> int | None:
        """Its number in the sweep."""
        return self.marks.get("job")

    @property
    def error(self) -> str:
        """Why it did not complete."""
        return str(self.marks.get("error") or "")

    @property
    def started(self) -> datetime.datetime | None:
        """When it began."""
        return _time(self.marks.get("started") or self.about.get("created"))

    @property
    def seconds(self) -> float | None:
        """How long it took, or has taken until now; of a dead one until its last sign of life."""
        end = datetime.datetime.now(datetime.UTC) if self.status == "running" else _time(self.marks.get("updated"))
        return None if self.started is None or end is None else (end - self.started).total_seconds()

    @property
    def stages(self) -> dict[str, Mapping[str, Any]]:
        """Its stages in order."""
        found = self.about.get("stages")
        stages = {k: v for k, v in found.items() if isinstance(v, Mapping)} if isinstance(found, Mapping) else {}
        return dict(sorted(stages.items(), key=lambda item: item[1].get("order", 0)))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return (folder / STATUS).is_file() or ((folder / MANIFEST).is_file() and (folder / "config.yaml").is_file())


def where_is(run: Path, stage: str, node: Mapping[str, Any]) -> Path:
    """The artifact of a stage of a run, wherever run and store were moved to.

    Args:
        run: its folder.
        stage: name of the stage.
        node: its entry in the run's manifest.

    Raises:
        StoreError: it is not there; the message says where it would be.
    """
    link = run / STAGES / stage
    near = node.get("artifact_from_here")
    places = [link, *([run.resolve() / str(near)] if near else []), Path(str(node.get("artifact", "")))]
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        return found.resolve()
    reason = lost(link) or f"it was at {node.get('artifact')}; put its store back there, or move run and store together"
    raise StoreError(f"{run}: the artifact of {stage} is not there: {reason}")


def _read(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _time(text: Any) -> datetime.datetime | None:
    with contextlib.suppress(ValueError, TypeError):
        found = datetime.datetime.fromisoformat(str(text))
        return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    return None
