"""Arguments of `hydra/sweeper=optuna`, and Optuna's objects that are made of them."""

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alignlab.config.space import Parameter, Space
from alignlab.errors import ConfigError, suggestion

if TYPE_CHECKING:
    import optuna

SAMPLERS: Final[Mapping[str, str]] = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "RandomSampler",  # it has nothing to draw: the study enqueues one point after the other
    "qmc": "QMCSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
}
"""Optuna's class of each name."""
PRUNERS: Final[Mapping[str, str]] = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
}
NEEDS: Final[Mapping[str, str]] = {"cmaes": "cmaes", "gp": "scipy"}
"""Package that a sampler needs in addition to Optuna."""
HERE: Final = "hydra.sweeper"
FILE: Final = "study.journal"
VALIDATED: Final = "validation_"
"""Beginning of a metric that a stage's validation measures while it trains."""


@dataclass(frozen=True)
class Settings:
    """Arguments of the sweeper, checked; see `conf/hydra/sweeper/optuna.yaml`."""

    n_trials: int = 20
    n_jobs: int = 1
    direction: str = "minimize"
    sampler: str = "tpe"
    sampler_arguments: Mapping[str, Any] | None = None
    seed: int = 0
    pruner: str = "none"
    pruner_arguments: Mapping[str, Any] | None = None
    storage: str | None = None
    study_name: str = "study"
    max_failures: int = 5
    params: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, least in (("n_trials", 1), ("n_jobs", 1), ("max_failures", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{HERE}.{name}: must be a whole number of at least {least}, got {value!r}")
        for name, known in (("direction", ("minimize", "maximize")), ("sampler", SAMPLERS), ("pruner", PRUNERS)):
            value = str(getattr(self, name))
            if value not in known:
                raise ConfigError(
                    f"{HERE}.{name}: must be one of {', '.join(known)}, got {value!r}{suggestion(value, list(known))}"
                )
        for name in ("sampler_arguments", "pruner_arguments", "params"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise ConfigError(f"{HERE}.{name}: must be a mapping or null, got {getattr(self, name)!r}")

    def check(self, metric: str, space: Space) -> None:
        """Make Optuna's objects once, so that what is wrong with them is known before anything trains.

        Raises:
            ConfigError: names the key.
        """
        package = NEEDS.get(self.sampler, "optuna")
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError(
                'hydra/sweeper=optuna needs Optuna, which is not installed: pip install "alignlab[optuna]"'
            )
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"{HERE}.sampler={self.sampler} needs the package {package}, which is not installed: pip install "
                f"{package}"
            )
        if self.pruner != "none" and not metric.partition("/")[2].startswith(VALIDATED):
            raise ConfigError(
                f"{HERE}.pruner={self.pruner} ends jobs by the validations of a stage that trains, and sweep.metric="
                f"{metric} is measured once; choose one such as dpo/validation_loss, or pruner=none"
            )
        if self.sampler == "grid":
            for parameter in space.parameters:
                choices(parameter)
        self.make_sampler(self.seed)
        self.make_pruner()

    def make_sampler(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Optuna's sampler."""
        import optuna

        given = {**(self.sampler_arguments or {}), "seed": seed}
        made: optuna.samplers.BaseSampler = _made(
            optuna.samplers, SAMPLERS[self.sampler], given, f"{HERE}.sampler_arguments"
        )
        return made

    def make_pruner(self) -> "optuna.pruners.BasePruner":
        """Optuna's pruner."""
        import optuna

        made: optuna.pruners.BasePruner = _made(
            optuna.pruners, PRUNERS[self.pruner], self.pruner_arguments or {}, f"{HERE}.pruner_arguments"
        )
        return made

    def place(self, folder: Path) -> str:
        """The study's storage, as it can be opened by a process anywhere.

        Args:
            folder: of the sweep.
        """
        if self.storage is None:
            return str(folder / FILE)
        return self.storage if "://" in self.storage else str(Path(self.storage).expanduser().absolute())


def choices(parameter: Parameter) -> tuple[Any, ...]:
    """The values of a parameter, one by one.

    Raises:
        ConfigError: it is an interval.
    """
    if not parameter.texts:
        raise ConfigError(
            f"{parameter.key}: {HERE}.sampler=grid tries values one by one and cannot take an interval; use "
            f"{parameter.key}=range(START,STOP,STEP) or choice(...)"
        )
    return parameter.numbers or parameter.texts


def distribution(parameter: Parameter) -> "optuna.distributions.BaseDistribution":
    """Optuna's form of a parameter."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.numbers:
        low, high = parameter.numbers[0], parameter.numbers[-1]
        step = (high - low) / (len(parameter.numbers) - 1) if len(parameter.numbers) > 1 else 1
        if all(isinstance(number, int) for number in parameter.numbers):
            return IntDistribution(int(low), int(high), step=max(1, round(step)))
        return FloatDistribution(low, high, step=round(step, 12))
    if parameter.texts:
        return CategoricalDistribution(parameter.texts)
    if parameter.is_whole:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.is_log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.is_log)


def text(parameter: Parameter, value: Any) -> str:
    """A value that Optuna chose, as an override has it; of a range, the number that was meant."""
    if parameter.numbers:
        return str(min(parameter.numbers, key=lambda number: abs(number - value)))
    return str(value)


@contextmanager
def quietly() -> Iterator[None]:
    """Optuna without its log, and without its notes on what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="The reported value is ignored")  # by a job that continues
        yield


def _made(module: Any, name: str, arguments: Mapping[str, Any], where: str) -> Any:
    try:
        with quietly():
            return getattr(module, name)(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"{where}: {name}: {' '.join(str(error).split())}") from error
