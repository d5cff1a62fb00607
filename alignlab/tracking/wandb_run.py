"""One W&B run per stage. `wandb` is imported when the first run is opened."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from alignlab.errors import AlignlabError, Preempted, Pruned
from alignlab.sanitize import printable, redact
from alignlab.stage import NullTracker

ROWS = 128
"""Rows of a table that are sent; a table of 256 rows may take half a second."""
STOPPED = 143
"""Exit code of a run that was asked to stop; anything but 0 makes W&B's "preempting" a "preempted"."""


class WandbRun(NullTracker):
    """Reports to one run.

    Args:
        mode: "online" or "offline".
        project, entity: where the run is filed.
        group: shared by the stages of one run of an experiment, and by all runs of one sweep.
        name: shown in lists and legends.
        job_type: the stage's name.
        tags: what W&B filters by; at most 64 characters each.
        fingerprint: of the stage; a retry gets an id of its own, because offline runs cannot be continued.
        config: redacted here.
        folder: runs are kept in `<folder>/wandb`.
    """

    def __init__(
        self,
        *,
        mode: str,
        project: str,
        entity: str | None,
        group: str,
        name: str,
        job_type: str,
        tags: Sequence[str],
        fingerprint: str,
        config: Mapping[str, Any],
        folder: Path,
    ) -> None:
        # Read when wandb is imported: no lines of its own in the terminal, and offline means no network calls.
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        # Metadata is off because it holds the command line, in which a key may stand; the git commit and the
        # versions are in the artifact's manifest.
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=mode == "offline",
            init_timeout=10,
            finish_timeout=20,
            login_timeout=5,
        )
        self._run = wandb.init(
            mode="online" if mode == "online" else "offline",
            project=project,
            entity=entity,
            group=group,
            job_type=job_type,
            name=name,
            tags=tags,
            id=f"{(fingerprint or job_type)[:16]}-{uuid4().hex[:8]}",
            config=redact(config),
            dir=str(folder),
            settings=settings,
            reinit="create_new",
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers of one step."""
        self._run.log(dict(metrics), step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """The first rows of a table."""
        import wandb

        if rows:
            columns: list[str | int] = list(dict.fromkeys(column for row in rows for column in row))
            data = [[_cell(row.get(str(column))) for column in columns] for row in rows[:ROWS]]
            self._run.log({name: wandb.Table(columns=columns, data=data, allow_mixed_types=True)})

    def summary(self, metrics: Mapping[str, float]) -> None:
        """The stage's metrics."""
        self._run.summary.update(dict(metrics))

    def page(self, name: str, file: Path) -> None:
        """A self-contained HTML file, as it is: what W&B would add to it, its own policy forbids."""
        import wandb

        self._run.log({name: wandb.Html(file, inject=False)})

    def close(self, error: BaseException | None) -> None:
        """End the run; one that failed or was asked to stop is marked so, and says why."""
        if error is not None:
            self._run.summary["pruned" if isinstance(error, Pruned) else "error"] = _reason(error)
        if isinstance(error, Preempted):
            self._run.mark_preempting()
        is_fine = error is None or isinstance(error, Pruned)
        self._run.finish(exit_code=0 if is_fine else STOPPED if isinstance(error, Preempted) else 1)


def _reason(error: BaseException) -> str:
    """The first line of an error, as the command would print it."""
    lines = str(redact(str(error))).strip().splitlines()
    kind = [] if lines and isinstance(error, (AlignlabError, Preempted)) else [type(error).__name__]
    return ": ".join([*kind, *(printable(line, limit=500) for line in lines[:1])])


def _cell(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return printable(str(value))
