"""Reports: what the tracker is told while a stage trains."""

from typing import Any

import pytorch_lightning as pl

from alignlab.stage import StageContext
from alignlab.stats import Mean
from alignlab.training.device import forget_peak, peak_memory
from alignlab.training.trainable import Trainable


class Reports(pl.Callback):
    """Tells the tracker about every step, and logs the mean of every few."""

    def __init__(self, stage: Trainable[Any], context: StageContext) -> None:
        self._stage, self._tracker = stage, context.tracker
        self._means: dict[str, Mean] = {}
        self._tokens = 0
        self._seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the memory of this stage alone."""
        forget_peak(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not trainer.is_global_zero:
            return
        step, report, loop = trainer.global_step, self._stage.last_step, self._stage.loop
        for name, mean in report.means.items():
            self._means[name] = self._means[name] + mean if name in self._means else mean
        self._tokens += report.tokens
        self._seconds += report.seconds
        if step % loop.log_every and step < loop.steps:
            return
        means = {name: float(mean.value()) for name, mean in self._means.items()}
        speed = self._tokens / self._seconds
        self._tracker.progress(step, loop.steps, {"loss": means["loss"], "tokens_per_second": speed})
        norms = {f"train/grad_norm_{k}": float(v) for k, v in report.norms.items()}
        logged = {f"train/{k}": v for k, v in means.items()} | norms
        machine = {"train/tokens_per_second": speed, "train/peak_memory_mb": peak_memory(pl_module.device)}
        self._tracker.log(step, {**logged, "train/lr": report.lr, **machine})
        self._means, self._tokens, self._seconds = {}, 0, 0.0

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write out what the tracker has buffered: a process that the strategy spawned ends here."""
        if trainer.is_global_zero:
            self._tracker.flush()

    def state_dict(self) -> dict[str, Any]:
        means = {name: [mean.total, mean.weight] for name, mean in self._means.items()}
        return {"means": means, "tokens": self._tokens, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._means = {name: Mean(total, weight) for name, (total, weight) in state_dict["means"].items()}
        self._tokens, self._seconds = int(state_dict["tokens"]), float(state_dict["seconds"])
