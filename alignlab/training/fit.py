"""Driving a training stage with Lightning's Trainer, which `Reports` and `Keeper` are hooked into."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from alignlab import distributed, stopping
from alignlab.errors import ConfigError
from alignlab.stage import StageContext
from alignlab.training.checkpoints import Checkpoints
from alignlab.training.keeper import Keeper
from alignlab.training.module import StageModule
from alignlab.training.reports import Reports
from alignlab.training.strategy import plugins_of, strategy_of
from alignlab.training.trainable import Trainable


def fit(stage: Trainable[Any], context: StageContext) -> Mapping[str, float]:
    """Train a prepared stage, publish its model into `context.folder`, return metrics of what was published."""
    threads = torch.get_num_threads()
    if context.runtime.threads:
        torch.set_num_threads(context.runtime.threads)
    module = StageModule(stage)
    keeper = Keeper(module, context)
    try:
        module.train()
        with _without_chatter():
            trainer = _trainer(stage, context, [Reports(stage, context), keeper], keeper.checkpoints)
            with stopping.deferred():
                trainer.fit(module, ckpt_path=_resumable(keeper.checkpoints, context), weights_only=True)
        return keeper.finish()
    finally:
        torch.set_num_threads(threads)


def _resumable(checkpoints: Checkpoints, context: StageContext) -> Path | None:
    """The checkpoint to continue from; the first process looks, because it sets a damaged one aside."""
    found = checkpoints.resumable(context.tracker.say) if distributed.rank() == 0 else None
    return cast("Path | None", distributed.gather_objects([found])[0])


class _NoSignals:
    """In place of Lightning's own handler of SIGTERM, as `stopping` has one.

    Lightning's exchanges a tensor with the other processes from within the handler, in the midst of any other exchange:
    they wait for each other for ever.
    """

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        pass

    def teardown(self) -> None:
        pass


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


def _trainer(
    stage: Trainable[Any], context: StageContext, callbacks: list[pl.Callback], checkpoints: Checkpoints
) -> pl.Trainer:
    runtime = context.runtime
    try:
        trainer = pl.Trainer(
            accelerator=runtime.accelerator,
            devices=runtime.devices,
            num_nodes=runtime.num_nodes,
            strategy=strategy_of(runtime),
            plugins=[*plugins_of(runtime), checkpoints],
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
    trainer._signal_connector = cast(Any, _NoSignals())
    return trainer
