"""TensorBoard: event files below the run's folder, one folder per stage. Needs `pip install alignlab[tensorboard]`."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import ConfigError
from alignlab.tracking.recorder import Made, Origin, Recorder, StageInfo, StageRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
NOT_A_SETTING = frozenset({"data", "tokenizer", "inputs", "model"})
"""Parts of a stage's configuration with too many values for the table of hyperparameters."""


@dataclass
class TensorBoard(Recorder):
    """Scalars, hyperparameters and samples in `RUN/tensorboard/STAGE`; `tensorboard --logdir RUN` shows them.

    A stage that the store has is shown in the run that made it; its evaluations are repeated in the run that takes them
    from there, so that a table over a sweep has all its rows.

    Args:
        rows: of a table that are shown as text.
    """

    rows: int = 16
    _run: Origin = field(default_factory=Origin, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError(f"TensorBoard: rows must be >= 0, got {self.rows}")

    def prepare(self) -> None:
        """See `Recorder`."""
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "tracking=tensorboard needs the package tensorboard: pip install 'alignlab[tensorboard]', or choose "
                "another option of tracking"
            )

    def run_begins(self, run: Origin) -> None:
        """See `Recorder`."""
        self._run = run

    def stage_begins(self, stage: StageInfo) -> "TensorBoardStage":
        """See `Recorder`."""
        folder = (self._run.folder or Path()) / FOLDER / stage.name
        return TensorBoardStage(folder, _settings(self._run, stage), self.rows)

    def cached(self, stage: StageInfo, metrics: Mapping[str, float]) -> None:
        """See `Recorder`."""
        if stage.kind == "evaluation":
            record = self.stage_begins(stage)
            record.summary(metrics)
            record.ends(None)


class TensorBoardStage(StageRecord):
    """The event files of one stage.

    Args:
        folder: of the stage. What an earlier attempt has written there is no longer shown: a resumed stage is logged
            from its first step.
        settings: shown next to the metrics.
        rows: of a table that are shown.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rows: int) -> None:
        self._folder, self._settings, self._rows = folder, settings, rows
        self._writer: SummaryWriter | None = None
        self._step = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `StageRecord`."""
        writer, self._step = self._open(), step
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    def table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """See `StageRecord`."""
        if shown := rows[: self._rows]:
            self._open().add_text(name, _markdown(shown), self._step)

    def summary(self, metrics: Mapping[str, float]) -> None:
        """The metrics as the result of the stage's settings (the tab HPARAMS)."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._open()
        results = {f"result/{name}": value for name, value in metrics.items()}
        file = writer._get_file_writer()  # add_hparams would make a folder of its own
        for part in hparams(dict(self._settings), results):
            file.add_summary(part)
        for name, value in results.items():
            writer.add_scalar(name, value, self._step)

    def ends(self, error: BaseException | None) -> None:
        """See `StageRecord`. TensorBoard has no mark for a run that failed, so the reason is a text."""
        if error is not None:
            self._open().add_text("error", type(error).__name__, self._step)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def made(self) -> Made:
        """See `StageRecord`."""
        return {"folder": str(self._folder)}

    def _open(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=0, max_queue=100, flush_secs=10)
        return self._writer


def _settings(run: Origin, stage: StageInfo) -> dict[str, Any]:
    """The overrides, and the plain values of the stage's configuration."""
    typed = dict(o.split("=", 1) for o in run.overrides if "=" in o and not o.startswith("hydra"))
    own = {key: value for key, value in stage.config.items() if key not in NOT_A_SETTING}
    return {**typed, **_flat(own), "experiment": run.experiment, "stage": stage.name}


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    """Plain values by dotted path."""
    if isinstance(node, Mapping):
        parts = [_flat(value, f"{path}.{key}" if path else str(key)) for key, value in node.items()]
        return {key: value for part in parts for key, value in part.items()}
    return {path: node} if isinstance(node, (bool, int, float, str)) else {}


def _markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table; TensorBoard shows it without running anything in it."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_text(row.get(c)) for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
