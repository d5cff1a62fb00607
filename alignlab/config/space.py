"""The search space of a sweep, read from overrides in Hydra's grammar."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from alignlab.config.grammar import parse
from alignlab.errors import ConfigError

SEARCHES: Final = "hydra_plugins.alignlab_sweepers.OptunaSweeper"
"""The sweeper that takes such a space."""
LOG: Final = "log"
"""Tag of a scale: `tag(log,interval(1e-5,1e-3))`."""


@dataclass(frozen=True)
class Parameter:
    """A key, and the values that it may have.

    Args:
        key: as typed, with its sign.
        texts: the values one by one, as an override has them; empty for an interval.
        numbers: those values as numbers that grow, where they are a range.
        low: smallest value of an interval.
        high: largest value of an interval; Hydra leaves it out, Optuna does not.
        is_whole: an interval of whole numbers.
        is_log: as likely between 0.01 and 0.1 as between 0.1 and 1.
    """

    key: str
    texts: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False
    is_log: bool = False

    def override(self, value: object) -> str:
        """The override that sets a value."""
        return f"{self.key}={value}"

    def ends(self) -> tuple[str, ...]:
        """Values that stand for all of them: each one, or the ends of an interval or range."""
        if self.numbers:
            return (str(self.numbers[0]), str(self.numbers[-1]))
        return self.texts or (str(self.low), str(self.high))


@dataclass(frozen=True)
class Space:
    """The values that a sweep chooses, and the overrides that all its jobs share.

    Args:
        fixed: overrides of every job.
        parameters: the keys to choose.
    """

    fixed: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @classmethod
    def read(cls, overrides: Sequence[str], params: Mapping[str, Any] | None = None, loader: Any = None) -> "Space":
        """Read overrides as typed.

        Args:
            overrides: of the command, without those of Hydra's section.
            params: `hydra.sweeper.params`, which what was typed goes before.
            loader: Hydra's, which lists the options of `glob(*)`.

        Raises:
            ConfigError: there is nothing to choose, or an interval is none.
        """
        typed = parse(overrides)
        taken = {parsed.get_key_element().lstrip("+") for parsed in typed}
        given = [p for p in parse([f"{k}={v}" for k, v in (params or {}).items()]) if p.get_key_element() not in taken]
        fixed, parameters = list[str](), list[Parameter]()
        for parsed in [*given, *typed]:
            parsed.config_loader = loader
            if parsed.is_sweep_override():
                parameters.append(_parameter(parsed))
            else:
                fixed.append(str(parsed.input_line))
        if not parameters:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to choose; give a key an interval or several values, such as "
                "pipeline.dpo.objective.beta=interval(0.01,0.5)"
            )
        return cls(tuple(fixed), tuple(parameters))

    def corners(self) -> Iterator[list[str]]:
        """Jobs in which each end of an interval and each of several values occurs once: what can be checked before."""
        for number in range(max(len(parameter.ends()) for parameter in self.parameters)):
            chosen = [p.override(p.ends()[number % len(p.ends())]) for p in self.parameters]
            yield [*self.fixed, *chosen]


def _parameter(parsed: Any) -> Parameter:
    value, key = parsed.value(), str(parsed.get_key_element())
    is_log = LOG in value.tags
    if parsed.is_interval_sweep():
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return _interval(Parameter(key, low=value.start, high=value.end, is_whole=whole, is_log=is_log), parsed)
    if parsed.is_range_sweep():
        numbers = _numbers(value)
        if not numbers:
            raise ConfigError(f"{parsed.input_line}: the range holds no number")
        if not is_log:
            return Parameter(key, numbers=numbers, texts=tuple(map(str, numbers)))
        if value.step != 1:
            raise ConfigError(f"{parsed.input_line}: a range on a logarithmic scale takes steps of 1")
        return _interval(Parameter(key, low=numbers[0], high=numbers[-1], is_whole=True, is_log=True), parsed)
    return Parameter(key, texts=tuple(dict.fromkeys(parsed.sweep_string_iterator())))


def _numbers(found: Any) -> tuple[float, ...]:
    """The numbers of a range, in the decimal places that were typed; Hydra's own sum up to 0.30000000000000004."""
    if all(isinstance(number, int) for number in (found.start, found.stop, found.step)):
        return tuple(sorted(range(found.start, found.stop, found.step)))
    start, stop, step = (Decimal(str(number)) for number in (found.start, found.stop, found.step))
    count = math.ceil((stop - start) / step)
    return tuple(sorted(float(start + step * number) for number in range(count)))


def _interval(found: Parameter, parsed: Any) -> Parameter:
    if not found.low <= found.high:
        raise ConfigError(f"{parsed.input_line}: the interval ends before it begins")
    if found.is_log and found.low <= 0:
        raise ConfigError(f"{parsed.input_line}: a logarithmic scale begins above 0")
    return found
