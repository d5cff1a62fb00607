"""The study: what was tried, in a file that several processes read and write.

A trial is a job. One that was left running by a process that has died (SIGKILL, a lost machine) is marked `lost` and
told to have failed, and its values are tried once more: its stages continue from their checkpoints. Trials of living
processes are left alone, so several people may run one study at the same time.
"""

import itertools
import os
import socket
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignlab.cli.search.settings import Settings, choices, distribution, quietly
from alignlab.config.space import Space
from alignlab.errors import ConfigError
from alignlab.pipeline.run_folder import is_alive
from alignlab.seed import fold_in

if TYPE_CHECKING:
    import optuna

METRIC: Final = "metric"
BEGUN_WITH: Final = "begun_with"
FIXED: Final = "fixed"
"""Attribute of a trial: what was typed besides its values."""
PROCESS: Final = "process"
LOST: Final = "lost"
AGAIN: Final = "again"


def opened(storage: str, name: str, **more: Any) -> "optuna.Study":
    """The study of a file, made if need be.

    Raises:
        ConfigError: it cannot be opened.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        with quietly():
            if "://" in storage:
                return optuna.create_study(storage=storage, study_name=name, load_if_exists=True, **more)
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            journal = JournalStorage(JournalFileBackend(storage))
            return optuna.create_study(storage=journal, study_name=name, load_if_exists=True, **more)
    except Exception as error:  # whatever SQLAlchemy or a damaged file raises
        raise ConfigError(
            f"hydra.sweeper.storage: {storage} cannot be opened as a study ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); choose another file"
        ) from error


class Trials:
    """The trials of one study.

    Args:
        settings: of the sweeper.
        space: to choose from.
        metric: that is optimised.
        storage: where the study is.
    """

    def __init__(self, settings: Settings, space: Space, metric: str, storage: str) -> None:
        self.settings, self.space, self.storage = settings, space, storage
        self.study = opened(storage, settings.study_name, direction=settings.direction, pruner=settings.make_pruner())
        self._check(metric)

    def _check(self, metric: str) -> None:
        """Refuse a study of something else."""
        begun = self.study.user_attrs
        where = f"the study {self.settings.study_name} of {self.storage}"
        then = "choose another hydra.sweeper.storage or study_name"
        if begun.get(METRIC, metric) != metric or self.study.direction.name.lower() != self.settings.direction:
            was = f"{self.study.direction.name.lower()}s {begun.get(METRIC)}"
            raise ConfigError(f"{where} {was}, not {self.settings.direction}s {metric}; {then}")
        for trial in self.study.get_trials(deepcopy=False):
            for name, before in trial.distributions.items():
                self._check_parameter(name, before, f"{where} has chosen", then)
        if METRIC not in begun:
            self.study.set_user_attr(METRIC, metric)
            self.study.set_user_attr(BEGUN_WITH, list(self.space.fixed))
        elif (typed := list(begun[BEGUN_WITH])) != list(self.space.fixed):
            print(f"{where} was begun with {' '.join(typed)}: its trials may not compare", flush=True)

    def _check_parameter(self, name: str, before: Any, where: str, then: str) -> None:
        from optuna.distributions import check_distribution_compatibility

        if name not in self.distributions:
            raise ConfigError(f"{where} {name}, which this sweep does not; {then}")
        try:
            check_distribution_compatibility(before, self.distributions[name])
        except ValueError as error:
            raise ConfigError(f"{where} {name} from other values ({before}); {then}") from error

    @cached_property
    def distributions(self) -> "dict[str, optuna.distributions.BaseDistribution]":
        """Optuna's form of the space."""
        return {parameter.key: distribution(parameter) for parameter in self.space.parameters}

    @cached_property
    def grid(self) -> list[dict[str, Any]]:
        """Every point of a grid, in the order in which the values were typed; empty for other samplers."""
        if self.settings.sampler != "grid":
            return []
        values = [choices(parameter) for parameter in self.space.parameters]
        return [dict(zip(self.distributions, point, strict=True)) for point in itertools.product(*values)]

    # ---- how far ----------------------------------------------------------------------------------------------------
    def left(self) -> int:
        """Trials still to begin, as far as is known by now."""
        trials = self.study.get_trials(deepcopy=False)
        ended = sum(trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") for trial in trials)
        left = self.settings.n_trials - ended
        waiting = any(trial.state.name == "WAITING" for trial in trials)
        return min(left, len(self.grid) - self._drawn() + waiting) if self.grid else left

    def count(self, state: str) -> int:
        """Trials in a state of Optuna's."""
        return sum(trial.state.name == state for trial in self.study.get_trials(deepcopy=False))

    def _drawn(self) -> int:
        """Trials whose values were drawn, whatever came of them; those that were lost are drawn again."""
        return len(self.study.get_trials(deepcopy=False)) - len(self._lost())

    def _lost(self) -> list[int]:
        """Numbers of the trials that were left running by processes that have died."""
        return list(self.study.user_attrs.get(LOST, ()))

    # ---- asking and telling -----------------------------------------------------------------------------------------
    def ask(self) -> "optuna.Trial":
        """The next trial: first what was lost, then what the sampler chooses by (seed, number)."""
        number = self._drawn()
        if self.grid and not self.count("WAITING"):
            self.study.enqueue_trial(self.grid[number])
        with quietly():
            self.study.sampler = self.settings.make_sampler(seed_of(self.settings.seed, number))
            trial = self.study.ask()
            trial.set_user_attr(FIXED, list(self.space.fixed))
            trial.set_user_attr(PROCESS, {"pid": os.getpid(), "host": socket.gethostname()})
            for name, kind in self.distributions.items():
                _suggest(trial, name, kind)
        return trial

    def tell(self, trial: "optuna.Trial", state: str, value: float | None = None) -> None:
        """Tell how a trial ended: COMPLETE with a value, PRUNED or FAIL."""
        from optuna.trial import TrialState

        with quietly():
            self.study.tell(trial, value, state=TrialState[state])

    def take_over(self) -> int:
        """Have the values tried again of trials whose processes have died; how many there are."""
        from optuna.trial import TrialState

        running = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        for trial in running:
            if not is_alive(trial.user_attrs.get(PROCESS, {})):
                self.study.set_user_attr(LOST, [*self._lost(), trial.number])
                self.study.tell(trial.number, state=TrialState.FAIL)
        trials = self.study.get_trials(deepcopy=False)
        again = {trial.user_attrs.get(AGAIN) for trial in trials}
        lost = [trials[number] for number in self._lost() if number not in again]
        for trial in lost:
            if trial.params.keys() == self.distributions.keys():
                self.study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
        return len(lost)

    def best(self) -> "optuna.trial.FrozenTrial | None":
        """The best complete trial, if there is one."""
        return self.study.best_trial if self.count("COMPLETE") else None


def seed_of(seed: int, number: int) -> int:
    """Seed with which the sampler draws a trial."""
    return fold_in(seed, number) % 2**32


def _suggest(trial: "optuna.Trial", name: str, kind: Any) -> None:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        trial.suggest_categorical(name, kind.choices)
    elif isinstance(kind, IntDistribution):
        trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
    else:
        trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)
