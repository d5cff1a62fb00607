"""Keeper: validation, early stopping, and the two kinds of checkpoint of a stage that trains.

They are not to be mixed up. `last.ckpt` in the work folder holds weights, optimizer and step, and lets a killed run
continue where it was (`alignlab.training.checkpoints`). What is *published* is a model in Hugging Face layout: the best
or last one, the other one below `checkpoints/` when they differ, and intermediate ones when asked for.
"""

import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytorch_lightning as pl

from alignlab import distributed, stopping
from alignlab.durable import put, sync_tree
from alignlab.errors import NonFiniteError, Preempted, Pruned
from alignlab.stage import StageContext
from alignlab.training.cadence import Cadence
from alignlab.training.checkpoints import Checkpoints
from alignlab.training.module import StageModule

_PUBLISHED: Final = "checkpoints"


class Keeper(pl.Callback):
    """Validates, stops early, keeps the best weights, and writes resumable checkpoints."""

    def __init__(self, module: StageModule, context: StageContext) -> None:
        self._module, self._stage, self._context = module, module.stage, context
        self._best: float | None = None
        self._best_step = 0
        self._since_best = 0
        self._step = 0
        self._published = context.folder / _PUBLISHED
        self.checkpoints = Checkpoints(context.work)
        self._cadence = Cadence(module.stage.loop.save_every)
        self._intermediate = context.work / _PUBLISHED  # published at the end, so that a run that dies keeps them
        self._train_loss = float("nan")
        self._said: set[str] = set()
        self._is_pruned = False

    # ---- Lightning's hooks ----------------------------------------------------------------------------------------
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._step, loop = trainer.global_step, self._stage.loop
        self._train_loss = float(self._stage.last_step.means["loss"].value())
        last = self._step == loop.steps
        validates = last or self._step % loop.validate_every == 0
        publishes = loop.checkpoint_every and self._step % loop.checkpoint_every == 0
        if validates or publishes:
            with self._module.published():
                if validates:
                    self._validate(trainer)
                if publishes:
                    self._publish(self._intermediate / f"step-{self._step:06d}")
        stop = _requested(trainer)
        if stop or (not last and self._is_due()):
            self.save(trainer)
        if stop:
            raise stop

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A bad number stops before the step, so the weights are those of the step before: keep them."""
        if isinstance(exception, NonFiniteError) and exception.weights_are_good:
            self.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        best = float("nan") if self._best is None else self._best
        steps = {"step": self._step, "best_step": self._best_step, "since_best": self._since_best}
        return {"best": best, **steps, "train_loss": self._train_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = float(state_dict["best"])
        self._best = None if best != best else best
        self._best_step, self._since_best = int(state_dict["best_step"]), int(state_dict["since_best"])
        self._step, self._train_loss = int(state_dict["step"]), float(state_dict["train_loss"])

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """A run that was killed after it had stopped early has nothing left to train."""
        self._cadence.start()
        if self._step and self._out_of_patience():
            trainer.should_stop = True

    # ---- validation -----------------------------------------------------------------------------------------------
    def _validate(self, trainer: pl.Trainer) -> None:
        metrics = self._validated()
        if self._stage.MONITOR not in metrics:
            self._say_once("nothing is held out: there is no best model, the last one is published")
            return
        if trainer.is_global_zero:
            self._context.tracker.log(self._step, {f"validation/{k}": v for k, v in metrics.items()})
        bad = {k: v for k, v in metrics.items() if not math.isfinite(v)}
        if bad:
            raise NonFiniteError(
                f"{self._context.name}: validation at step {self._step} found {bad}; nothing is published. Lower "
                f"optimizer.lr, or look at the held-out records"
            )
        value = metrics[self._stage.MONITOR] * (-1 if self._stage.HIGHER_IS_BETTER else 1)
        if self._best is None or value < self._best:
            self._best, self._best_step, self._since_best = value, self._step, 0
            self._save_best()
        else:
            self._since_best += 1
        if self._has_no_use(trainer, metrics) and self._step < self._stage.loop.steps:
            self._is_pruned = trainer.should_stop = True
        elif self._out_of_patience() and self._step < self._stage.loop.steps:
            self._context.tracker.say(
                f"stopped at step {self._step}: {self._stage.MONITOR} has not improved since step {self._best_step}"
            )
            trainer.should_stop = True

    def _has_no_use(self, trainer: pl.Trainer, metrics: Mapping[str, float]) -> bool:
        """Whether the study that this run belongs to ends it; the first process asks for all."""
        ends = trainer.is_global_zero and self._context.validated(self._step, metrics)
        return bool(distributed.max_of(int(ends), self._module.device))

    def _out_of_patience(self) -> bool:
        patience = self._stage.loop.patience
        return patience is not None and self._since_best >= patience

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._context.tracker.say(text)

    # ---- keeping --------------------------------------------------------------------------------------------------
    def _is_due(self) -> bool:
        due = self._cadence.is_due(self._step)
        # A checkpoint is written by all processes together, and their clocks differ.
        return bool(distributed.max_of(due, self._module.device)) if self._cadence.is_by_time else due

    def save(self, trainer: pl.Trainer) -> None:
        """Write the resumable checkpoint; the good one is replaced only by a whole one."""
        began = time.monotonic()
        if trainer.is_global_zero:
            self._context.tracker.flush()  # a run that continues from here logs no earlier step again
        trainer.save_checkpoint(self.checkpoints.last)
        if trainer.is_global_zero:
            self.checkpoints.forget_bests(self._best_step)
        self._cadence.saved(time.monotonic() - began)

    def _save_best(self) -> None:
        state = self._module.whole_state()
        if distributed.rank() == 0:
            self.checkpoints.save_best(state, self._best_step)
            self.checkpoints.forget_bests(self._best_step)

    def _publish(self, folder: Path) -> None:
        """Write the model as it is, whole or not at all where it is an intermediate one."""
        with distributed.written_whole(*self._stage.modules().values()):
            self._write(folder)

    def _write(self, folder: Path) -> None:
        if distributed.rank() == 0:
            new = folder.with_name(f".{folder.name}.new") if folder.parent == self._intermediate else folder
            new.mkdir(parents=True, exist_ok=True)
            self._stage.publish(new)
            if new != folder:
                shutil.rmtree(folder, ignore_errors=True)  # of a run that died after its last resumable checkpoint
                sync_tree(new)
                put(new, folder)

    def finish(self) -> Mapping[str, float]:
        """Publish the kept weights at the artifact's root, the other ones below `checkpoints/`."""
        self._module.to(self._context.runtime.device)  # Lightning has brought it to the CPU
        if self._is_pruned:
            raise Pruned(f"{self._context.name}: pruned at step {self._step} of {self._stage.loop.steps}")
        if distributed.rank() == 0:
            for folder in sorted(self._intermediate.glob("step-*")):
                shutil.copytree(folder, self._published / folder.name)  # the work folder goes when all is published
        self._module.keep_published()
        keep = self._stage.loop.keep
        differ = self._best_step not in (0, self._step)
        if differ and keep == "best":
            self._publish(self._published / "last")
            self._load_best()
        elif differ:
            last: dict[str, Any] = {k: v.clone() for k, v in self._module.state_dict().items()}
            self._load_best()
            self._publish(self._published / "best")
            self._module.load_state_dict(last)
        self._publish(self._context.folder)
        found = {f"validation_{k}": v for k, v in self._validated().items()}
        steps = {"steps": float(self._step), "best_step": float(self._best_step)}
        return {**found, "train_loss": self._train_loss, **steps}

    def _validated(self) -> dict[str, float]:
        self._module.eval()
        with self._context.runtime.autocast():
            return self._stage.validate_now()

    def _load_best(self) -> None:
        distributed.barrier()  # the first process has written it
        self._module.load_state_dict(self.checkpoints.load_best(self._best_step))


def _requested(trainer: pl.Trainer) -> Preempted | None:
    """The request to stop that any of the processes received, on all of them: they stop after the same step."""
    own = stopping.requested()
    code = distributed.max_of(own.code if own else 0, trainer.strategy.root_device)
    return own if own or not code else Preempted("another process was asked to stop; what is done is kept", code)
