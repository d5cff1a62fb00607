"""The W&B run of one stage, with its artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from alignlab.tracking import wandb_lineage
from alignlab.tracking.recorder import Made, StageInfo, StageRecord
from alignlab.tracking.wandb_run import WandbRun


class WandbStage(StageRecord):
    """The W&B run of a stage.

    Args:
        run: that was opened for it.
        stage: that it belongs to.
        upload: send the artifact's files.
        agents_run: the run that the agent of a W&B sweep looks at; it receives the values of the validation, so that
            a sweep can stop early.
    """

    def __init__(self, run: WandbRun, stage: StageInfo, upload: bool, agents_run: WandbRun | None) -> None:
        self._run, self._stage, self._upload, self._agents_run = run, stage, upload, agents_run
        self._metrics: dict[str, float] = {}
        if run.is_online:
            wandb_lineage.use(run.run, stage)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `StageRecord`."""
        self._run.log(step, metrics)
        if self._agents_run is not None:
            found = {k.replace("validation/", "validation_"): v for k, v in metrics.items() if "validation/" in k}
            if found:
                self._agents_run.log(None, {f"{self._stage.name}/{name}": value for name, value in found.items()})

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """See `StageRecord`."""
        self._run.table(name, rows)

    def summary(self, metrics: Mapping[str, float]) -> None:
        """See `StageRecord`."""
        self._metrics = dict(metrics)
        self._run.summary(metrics)

    def page(self, name: str, file: Path) -> None:
        """See `StageRecord`."""
        self._run.page(name, file)

    def made(self) -> Made:
        """See `StageRecord`."""
        found = self._run.made()
        if self._run.is_online and self._stage.fingerprint:
            place = found["run"].rpartition("/")[0]
            return {**found, "artifact": f"{place}/{wandb_lineage.name_of(self._stage.kind, self._stage.fingerprint)}"}
        return found

    def ends(self, error: BaseException | None) -> None:
        """See `StageRecord`."""
        if error is None and self._stage.fingerprint:
            self._run.run.log_artifact(wandb_lineage.made(self._stage, self._metrics, self._upload))
        self._run.close(error)
