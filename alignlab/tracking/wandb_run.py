"""One run at W&B. `wandb` is imported when the first one is opened."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.errors import AlignlabError, Preempted, Pruned
from alignlab.sanitize import printable, redact
from alignlab.tracking import wandb_agent
from alignlab.tracking.wandb_agent import Agent

STOPPED = 143
"""Exit code of a run that was asked to stop; anything but 0 makes W&B's "preempting" a "preempted"."""
PATIENCE = 20
"""Seconds that the end of a run may take."""


@dataclass(frozen=True)
class RunAt:
    """Description of a run for W&B.

    Args:
        id: of the run.
        project, entity: where the run is filed; without an entity, in the account's own.
        group: shared by the stages of one run of an experiment, and by all runs of one sweep.
        name: shown in lists and legends.
        job_type: the stage's name.
        tags: what W&B filters by; at most 64 characters each.
        config: without secrets.
        notes: shown on the run's page.
        folder: runs are kept in `<folder>/wandb`.
        uploads: whether files are sent that may take long.
    """

    id: str
    project: str
    entity: str | None
    group: str
    name: str
    job_type: str
    folder: Path
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    uploads: bool = False


class WandbRun:
    """An open run.

    Args:
        about: its description.
        mode: "online" or "offline".
        agent: whose own run this is; None for any other run.
    """

    def __init__(self, about: RunAt, mode: str, agent: Agent | None = None) -> None:
        # Read when wandb is imported: no lines of its own in the terminal, and offline means no network calls.
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        with wandb_agent.hidden():
            self.run = _init(about, mode, agent)

    @property
    def is_online(self) -> bool:
        """Whether W&B has the run while it is open."""
        return not self.run.offline

    def log(self, step: int | None, metrics: Mapping[str, float]) -> None:
        """Numbers of one step; of the next one where it has no number."""
        self.run.log(dict(metrics), step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """A table, where it has rows."""
        import wandb

        if rows:
            columns: list[str | int] = list(dict.fromkeys(column for row in rows for column in row))
            data = [[row.get(str(column)) for column in columns] for row in rows]
            self.run.log({name: wandb.Table(columns=columns, data=data, allow_mixed_types=True)})

    def summary(self, metrics: Mapping[str, float]) -> None:
        """The numbers that the run ended with."""
        self.run.summary.update(dict(metrics))

    def page(self, name: str, file: Path) -> None:
        """A self-contained HTML file, as it is: what W&B would add to it, its own policy forbids."""
        import wandb

        self.run.log({name: wandb.Html(file, inject=False)})

    def made(self) -> dict[str, str]:
        """Where the run is found: its path at W&B, its page if that is known, else its folder on this machine."""
        parts = [self.run.entity, self.run.project, self.run.id]
        found = {"run": "/".join(part for part in parts if part), "group": str(self.run.group or "")}
        if self.is_online:
            return {**found, "url": str(self.run.url or "")}
        return {**found, "offline": str(Path(self.run.dir).parent)}

    def close(self, error: BaseException | None) -> None:
        """End the run; one that failed or was asked to stop is marked so, and says why."""
        if error is not None:
            self.run.summary["pruned" if isinstance(error, Pruned) else "error"] = _reason(error)
        if isinstance(error, Preempted):
            self.run.mark_preempting()
        is_fine = error is None or isinstance(error, Pruned)
        self.run.finish(exit_code=0 if is_fine else STOPPED if isinstance(error, Preempted) else 1)


def _init(about: RunAt, mode: str, agent: Agent | None) -> Any:
    import wandb

    about.folder.mkdir(parents=True, exist_ok=True)
    # Metadata is off because it holds the command line, in which a key may stand; the git commit and the versions are
    # in the artifact's manifest.
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_save_requirements=False,  # would look at every installed package, 0.8 s per run
        x_disable_stats=mode == "offline",
        init_timeout=10,
        finish_timeout=0 if about.uploads else PATIENCE,
        login_timeout=5,
    )
    if agent is not None:
        settings.sweep_id, settings.sweep_param_path = agent.sweep, agent.parameters or None
    return wandb.init(
        mode="online" if mode == "online" else "offline",
        project=about.project,
        entity=about.entity,
        group=about.group,
        job_type=about.job_type,
        name=about.name,
        tags=about.tags,
        notes=about.notes or None,
        id=about.id,
        config=dict(about.config),
        dir=str(about.folder),
        settings=settings,
        reinit="create_new",
    )


def _reason(error: BaseException) -> str:
    """The first line of an error, as the command would print it."""
    lines = str(redact(str(error))).strip().splitlines()
    kind = [] if lines and isinstance(error, (AlignlabError, Preempted)) else [type(error).__name__]
    return ": ".join([*kind, *(printable(line, limit=500) for line in lines[:1])])
