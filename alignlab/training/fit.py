"""Driving a training stage with Lightning's Trainer: reports, validation, early stopping, checkpoints.

Two kinds of checkpoint, not to be mixed up. `last.ckpt` in the work folder holds weights, optimizer and step, and lets
a killed run continue where it was. What is *published* is a model in Hugging Face layout: the best or last one, the
other one below `checkpoints/` when they differ, and intermediate ones when asked for.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from alignlab import distributed, stopping
from alignlab.artifact import digest_of_file
from alignlab.errors import ConfigError, NonFiniteError, Preempted
from alignlab.stage import StageContext
from alignlab.stats import Mean
from alignlab.training.module import StageModule
from alignlab.training.trainable import Trainable

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
DIGEST = ".sha256"
END = "end.json"


def fit(stage: Trainable[Any], context: StageContext) -> Mapping[str, float]:
    """Train a prepared stage, publish its model into `context.folder`, return metrics of what was published."""
    threads = torch.get_num_threads()
    if context.runtime.threads:
        torch.set_num_threads(context.runtime.threads)
    module = StageModule(stage)
    keeper = _Keeper(module, context)
    try:
        module.train()
        with _without_chatter():
            trainer = _trainer(stage, context, [_Reports(stage, context), keeper])
            # Processes that the strategy spawns would never check for a request to stop.
            alone = context.runtime.devices * context.runtime.num_nodes == 1
            with stopping.deferred() if alone else _ended_together(trainer):
                _fitted(trainer, module, _resumable(context))
        return keeper.finish()
    finally:
        torch.set_num_threads(threads)


def _fitted(trainer: pl.Trainer, module: StageModule, checkpoint: str | None) -> None:
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except SIGTERMException as error:
        # Lightning's own, where the signal came after ours was last asked for. It is a SystemExit without a code.
        raise stopping.requested() or Preempted("asked to stop (SIGTERM); what is done is kept") from error


@contextlib.contextmanager
def _ended_together(trainer: pl.Trainer) -> Iterator[None]:
    """When this process is stopped, stop those that it has spawned, too; else they would continue to train."""
    try:
        yield
    except BaseException:
        launcher: Any = trainer.strategy.launcher
        if hasattr(launcher, "kill"):
            launcher.kill(signal.SIGKILL)
        raise


def _resumable(context: StageContext) -> str | None:
    """The checkpoint to continue from; a damaged one is set aside."""
    file = context.work / LAST
    if not file.is_file():
        return None
    digest = file.with_suffix(DIGEST)
    if digest.is_file() and digest_of_file(file) in digest.read_text(encoding="utf-8").split():
        context.tracker.say(f"continues from {file}")
        return str(file)
    aside = file.with_suffix(".damaged")
    os.replace(file, aside)
    context.tracker.say(f"{file} is damaged, so the stage starts again; the old files are kept as {aside.name}")
    return None


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Lightning without its advertisements and its notes on devices; its warnings stay."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
    loggers = [logging.getLogger(f"{n}.utilities.rank_zero") for n in names] + [logging.getLogger(n) for n in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls what torch 2.13 has deprecated.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _trainer(stage: Trainable[Any], context: StageContext, callbacks: list[pl.Callback]) -> pl.Trainer:
    runtime = context.runtime
    try:
        return pl.Trainer(
            accelerator=runtime.accelerator,
            devices=runtime.devices,
            num_nodes=runtime.num_nodes,
            strategy=runtime.strategy,
            precision=cast(Any, runtime.precision),
            max_steps=stage.loop.steps,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=context.work,
        )
    except (MisconfigurationException, ValueError) as error:  # no such strategy, no GPU on this machine
        raise ConfigError(f"runtime: {error}") from error


class _Reports(pl.Callback):
    """Tells the tracker about every step, and logs the mean of every few."""

    def __init__(self, stage: Trainable[Any], context: StageContext) -> None:
        self._stage, self._tracker = stage, context.tracker
        self._means: dict[str, Mean] = {}
        self._tokens = 0
        self._seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
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
        self._tracker.log(step, {**logged, "train/lr": report.lr, "train/tokens_per_second": speed})
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


class _Keeper(pl.Callback):
    """Validates, stops early, keeps the best weights, and writes resumable checkpoints."""

    def __init__(self, module: StageModule, context: StageContext) -> None:
        self._module, self._stage, self._context = module, module.stage, context
        self._best: float | None = None
        self._best_step = 0
        self._since_best = 0
        self._step = 0
        self._published = context.folder / CHECKPOINTS
        self._best_file = context.work / "best.pt"
        self._intermediate = context.work / CHECKPOINTS  # published at the end, so that a run that dies keeps them
        self._train_loss = float("nan")
        self._said: set[str] = set()

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
        stop = stopping.requested()
        if stop or (not last and self._step % loop.save_every == 0):
            self.save(trainer)
        if stop:
            raise stop

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A bad number stops before the step, so the weights are those of the step before: keep them."""
        if isinstance(exception, NonFiniteError) and exception.weights_are_good:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write down how training ended: processes that the strategy started lose their state when they end."""
        if trainer.is_global_zero:
            end = {"step": self._step, "best_step": self._best_step, "train_loss": self._train_loss}
            (self._context.work / END).write_text(json.dumps(end), encoding="utf-8")

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
        if self._out_of_patience() and self._step < self._stage.loop.steps:
            self._context.tracker.say(
                f"stopped at step {self._step}: {self._stage.MONITOR} has not improved since step {self._best_step}"
            )
            trainer.should_stop = True

    def _out_of_patience(self) -> bool:
        patience = self._stage.loop.patience
        return patience is not None and self._since_best >= patience

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._context.tracker.say(text)

    # ---- keeping --------------------------------------------------------------------------------------------------
    def save(self, trainer: pl.Trainer) -> None:
        """Write the resumable checkpoint; the good one is replaced only by a whole one."""
        file = self._context.work / LAST
        temporary = file.with_suffix(".new")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            # Both digests are written before the file is replaced: whenever this is cut short, one of them fits.
            digests = [digest_of_file(f) for f in (temporary, file) if f.is_file()]
            listed = file.with_suffix(f"{DIGEST}.new")
            listed.write_text("\n".join(digests), encoding="utf-8")
            os.replace(listed, file.with_suffix(DIGEST))
            os.replace(temporary, file)

    def _save_best(self) -> None:
        if distributed.rank() == 0:
            temporary = self._best_file.with_suffix(".new")
            torch.save(self._module.state_dict(), temporary)
            os.replace(temporary, self._best_file)

    def _publish(self, folder: Path) -> None:
        """Write the model as it is, whole or not at all where it is an intermediate one."""
        if distributed.rank() == 0:
            new = folder.with_name(f".{folder.name}.new") if folder.parent == self._intermediate else folder
            new.mkdir(parents=True, exist_ok=True)
            self._stage.publish(new)
            if new != folder:
                shutil.rmtree(folder, ignore_errors=True)  # of a run that died after its last resumable checkpoint
                new.rename(folder)

    def finish(self) -> Mapping[str, float]:
        """Publish the kept weights at the artifact's root, the other ones below `checkpoints/`."""
        self._module.to(self._context.runtime.device)  # Lightning has brought it to the CPU
        if not self._step:  # other processes trained, started by the strategy
            end = json.loads((self._context.work / END).read_text(encoding="utf-8"))
            self._step, self._best_step, self._train_loss = end["step"], end["best_step"], end["train_loss"]
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
        self._module.load_state_dict(torch.load(self._best_file, map_location="cpu", weights_only=True))
