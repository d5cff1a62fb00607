"""Base of the launchers: a job as it is sent to another process, and what comes back."""

import abc
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import open_dict, read_write

from alignlab.cli.job import JobFailed, Task, has_metric, own_task
from alignlab.cli.prepared import shown
from alignlab.cli.sweeps.sweep import Sweep
from alignlab.errors import ConfigError, Preempted

Tree: TypeAlias = Any
"""OmegaConf's DictConfig; see `alignlab.config.replaced.Tree`."""
Numbered: TypeAlias = tuple[int, Sequence[str]]
"""Number and overrides of a job."""


@dataclass(frozen=True)
class Order:
    """One job of a sweep.

    Args:
        number: within the sweep.
        overrides: of this job alone.
        context: Hydra's.
        config: of this job, composed when the sweep began; options that are edited while jobs wait change none.
        task: that runs it.
    """

    number: int
    overrides: tuple[str, ...]
    context: HydraContext
    config: Tree
    task: Task

    @classmethod
    def of(cls, number: int, overrides: Sequence[str], context: HydraContext, config: Tree, task: Task) -> "Order":
        """The order of a job.

        Args:
            config: of the whole sweep.
        """
        cfg = context.config_loader.load_sweep_config(config, list(overrides))
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
        return cls(number, tuple(overrides), context, cfg, task)

    @property
    def sweep(self) -> Sweep:
        """The sweep that it belongs to."""
        assert self.task.sweep is not None
        return self.task.sweep

    def run(self) -> JobReturn:
        """Run it here; what it computed stays in its folder, so that little is sent back."""
        setup_globals()
        HydraConfig.instance().set_config(self.config)
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        return dataclasses.replace(done, cfg=None, hydra_cfg=None)

    def ended(self, error: str | None = None) -> JobReturn:
        """The return of a job that returned nothing itself.

        Args:
            error: why, where it failed. A sweeper that needs no results is not told: it would stop at the first one.
        """
        made = JobReturn(overrides=list(self.overrides), status=JobStatus.COMPLETED)
        if error is not None:
            self.sweep.fail(self.number, error, shown(self.overrides))
            print(f"job {self.number}: {error}", file=sys.stderr, flush=True)
            if has_metric(self.config):
                made.status, made._return_value = JobStatus.FAILED, JobFailed(error)
        return made


class JobLauncher(Launcher, abc.ABC):
    """A launcher whose jobs run in other processes. Their numbers may have gaps, when a sweep is resumed."""

    context: HydraContext
    task: Task
    config: Tree

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: Tree) -> None:
        """Take what the jobs need.

        Raises:
            ConfigError: another program of Hydra's uses it.
        """
        self.context, self.task, self.config = hydra_context, own_task(type(self).__name__, task_function), config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs with numbers that follow each other; returns when all have ended."""
        return self.launch_numbered(list(enumerate(job_overrides, initial_job_idx)))

    def launch_numbered(self, jobs: Sequence[Numbered]) -> Sequence[JobReturn]:
        """Run jobs; returns when all have ended, in their order."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        orders = [Order.of(number, words, self.context, self.config, self.task) for number, words in jobs]
        returned = self.run(orders) if orders else {}
        return [returned.get(order.number) or order.ended() for order in orders]

    @abc.abstractmethod
    def run(self, orders: Sequence[Order]) -> dict[int, JobReturn]:
        """Run jobs until all have ended; by their numbers, those that returned something.

        When the sweep was asked to stop, no further job begins.
        """

    def stopped(self) -> Preempted | None:
        """The request to stop, if there was one."""
        return self.task.sweep.stopped() if self.task.sweep is not None else None


def positive(owner: str, **numbers: int) -> None:
    """Check arguments of a launcher.

    Raises:
        ConfigError: one is not a whole number above 0.
    """
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"hydra.launcher.{name}: {owner} takes a whole number of at least 1, got {value!r}")
