"""Send the jobs of a sweep to its launcher, as Hydra's basic sweeper does; numbers may have gaps."""

import importlib.util
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import OmegaConf

from alignlab.cli.job import Task
from alignlab.cli.launchers.base import JobLauncher
from alignlab.config.compose import Session
from alignlab.config.internals import Callbacks
from alignlab.config.replaced import Tree
from alignlab.errors import ConfigError

OWN: Final = "hydra_plugins.alignlab_launchers."
NEEDS: Final[Mapping[str, tuple[str, str]]] = {
    f"{OWN}SubmititLocalLauncher": ("submitit", "sweep"),
    f"{OWN}SubmititSlurmLauncher": ("submitit", "sweep"),
    f"{OWN}RayLauncher": ("ray", "ray"),
}
"""Package that a launcher needs, and the extra of alignlab that brings it."""
Job: TypeAlias = tuple[int, Sequence[str]]
"""Number and overrides."""


def check_launcher(cfg: Tree) -> None:
    """Refuse a launcher whose package is not installed, and arguments that it does not take.

    Raises:
        ConfigError: it says what to install, or which argument is wrong.
    """
    target = str(cfg.hydra.launcher.get("_target_", ""))
    name = cfg.hydra.runtime.choices.get("hydra/launcher")
    package, extra = NEEDS.get(target, ("", ""))
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"hydra/launcher={name} needs the package {package}, which is not installed: "
            f'pip install "alignlab[{extra}]"'
        )
    if target.startswith(OWN):
        given: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
        found = Plugins.instance().class_name_to_class[target]
        try:
            found(**{key: value for key, value in given.items() if key != "_target_"})
        except TypeError as error:
            raise ConfigError(f"hydra/launcher={name}: {error}") from error
    if target == f"{OWN}SubmititSlurmLauncher" and (lacking := [c for c in ("sbatch", "srun") if not shutil.which(c)]):
        raise ConfigError(
            f"hydra/launcher={name}: {' and '.join(lacking)} cannot be found; start the sweep where sbatch works, "
            f"or try hydra/launcher=submitit_local"
        )


def launch(hydra: Session, cfg: Tree, task: Task, jobs: Sequence[Job]) -> None:
    """Run jobs by the launcher of the sweep's configuration; returns when all have ended.

    Args:
        hydra: the session.
        cfg: of the whole sweep.
        task: that runs a job.
        jobs: to run.

    Raises:
        JobFailed: a job has failed whose result was asked for.
    """
    callbacks = Callbacks(cfg)
    callbacks.on_multirun_start(config=cfg, config_name=hydra.root)
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=cfg)
    for batch in _batches(jobs, cfg.hydra.sweeper.get("max_batch_size")):
        for returned in _launched(launcher, batch):
            _ = returned.return_value  # raises where the job has failed
    callbacks.on_multirun_end(config=cfg, config_name=hydra.root)


def _launched(launcher: Launcher, jobs: Sequence[Job]) -> Sequence[Any]:
    if isinstance(launcher, JobLauncher):
        return launcher.launch_numbered(jobs)
    return [done for run in _runs(jobs) for done in launcher.launch([words for _, words in run], run[0][0])]


def _batches(jobs: Sequence[Job], size: int | None) -> Iterator[Sequence[Job]]:
    step = size or max(1, len(jobs))
    yield from (jobs[i : i + step] for i in range(0, len(jobs), step))


def _runs(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """Jobs whose numbers follow each other, together: other launchers count on by themselves."""
    first = 0
    for i in range(1, len(jobs) + 1):
        if i == len(jobs) or jobs[i][0] != jobs[i - 1][0] + 1:
            yield jobs[first:i]
            first = i
