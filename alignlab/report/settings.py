"""Settings: runs that differ only in their seed, and in what several settings differ.

Keys whose values change exactly when another one's do (a stage's own copy of the data) are counted, not listed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import stdev
from string import ascii_uppercase
from typing import Any, Final

from alignlab.report.differing import ABSENT, keys_that_differ
from alignlab.report.numbers import Format
from alignlab.report.seeds import OverSeeds
from alignlab.report.trial import Trial

DULL: Final = ("seconds", "bytes", "tokens_per_second", "peak_memory_mb")
"""Metrics of the machine, and sizes of files."""


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in their seed.

    Args:
        letter: A for the first one.
        trials: the runs, one for each seed.
    """

    letter: str
    trials: Sequence[Trial]

    def over_seeds(self, metric: str) -> OverSeeds | None:
        """A metric, of the runs that have it."""
        values = [trial.metrics[metric] for trial in self.trials if metric in trial.metrics]
        return OverSeeds(values) if values else None


@dataclass(frozen=True)
class Key:
    """A key in which settings differ.

    Args:
        name: dotted.
        values: of each setting.
        along: further keys that change exactly when this one does.
    """

    name: str
    values: Sequence[str]
    along: Sequence[str] = ()


@dataclass(frozen=True)
class Difference:
    """One metric in every setting.

    Args:
        metric: "stage/metric".
        values: of each setting; None where it has none.
        errors: standard error of the difference to the first setting; None where it is not known.
    """

    metric: str
    values: Sequence[OverSeeds | None]
    errors: Sequence[float | None]

    @property
    def gaps(self) -> list[float | None]:
        """Difference of each mean to that of the first setting."""
        first = self.values[0]
        return [None if v is None or first is None else v.mean - first.mean for v in self.values]

    @property
    def texts(self) -> list[str]:
        """`0.75 ± 0.03 (3)` for each setting."""
        counts = [f" ({v.count})" if v is not None and v.count > 1 else "" for v in self.values]
        found = (ABSENT if v is None else v.text(self._format) for v in self.values)
        return [f"{text}{count}" for text, count in zip(found, counts, strict=True)]

    @property
    def changes(self) -> list[str]:
        """`-0.03 ± 0.01` for each setting but the first."""
        found = []
        for i, (gap, error) in enumerate(zip(self.gaps, self.errors, strict=True)):
            noise = "" if error is None else f" ± {self._format.text(error)}"
            found.append("" if i == 0 or gap is None else f"{self._format.signed(gap) or '0'}{noise}")
        return found

    @cached_property
    def _format(self) -> Format:
        known = [v for v in self.values if v is not None]
        found = Format.of([number for v in known for number in (v.mean, v.error or 0.0, *v.values)], share=False)
        errors = [error for error in (*(v.error for v in known), *self.errors) if error]
        if not errors:
            return found
        return Format(max(found.decimals, min(found.decimals + 2, -math.floor(math.log10(min(errors))))))

    @property
    def size(self) -> float:
        """How far settings lie apart: in standard errors where they are known, else as a share of the values."""
        return max((self._size(i) for i in range(1, len(self.values))), default=0.0)

    def _size(self, i: int) -> float:
        gap, first = self.gaps[i], self.values[0]
        if gap is None or first is None:
            return 0.0
        scale = self.errors[i] or abs(first.mean) + abs(first.mean + gap)
        return abs(gap) / scale if scale else 0.0


@dataclass(frozen=True)
class Comparison:
    """Several settings.

    Args:
        settings: the first one is what the others are compared with.
        keys: in which they differ: of the configuration, and the code and data of stages.
        repeated: older runs of a setting and seed that another run has, too; they are not compared.
    """

    settings: Sequence[Setting]
    keys: Sequence[Key]
    repeated: Sequence[Path] = ()

    @classmethod
    def of(cls, folders: Sequence[Path]) -> "Comparison":
        """Read completed runs, and group those that differ only in their seed; `DataError` for a damaged file."""
        trials = [Trial.read(folder, folder.name, "completed") for folder in folders]
        differing = keys_that_differ(trials)
        merged = _merged(differing)
        settings: dict[tuple[str, ...], list[Trial]] = {}
        for i, trial in enumerate(trials):
            settings.setdefault(tuple(v[i] for v in differing.values()), []).append(trial)
        keys = [Key(n, [values[list(differing).index(n)] for values in settings], a) for n, a in merged.items()]
        found = [Setting(_letter(i), _latest(group)) for i, group in enumerate(settings.values())]
        compared = [trial for setting in found for trial in setting.trials]
        return cls(found, keys, [trial.folder for trial in trials if trial not in compared])

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric that a run has."""
        return list(dict.fromkeys(name for setting in self.settings for t in setting.trials for name in t.metrics))

    @property
    def is_paired(self) -> bool:
        """Whether all settings have the same several seeds, each once."""
        seeds = [sorted(trial.seed for trial in setting.trials) for setting in self.settings]
        return all(s == seeds[0] and len(set(s)) == len(s) > 1 for s in seeds)

    def differences(self, names: Sequence[str] | None = None) -> list[Difference]:
        """The metrics that differ, what differs most first; or those that were named.

        Of a setting alone all are shown.
        """
        found = [self._difference(name) for name in names or self.metrics]
        if names:
            return found
        if len(self.settings) == 1:
            return [d for d in found if not _is_dull(d.metric)]
        apart = [d for d in found if d.size > 0 or None in d.values]
        return sorted(apart, key=lambda d: (_is_dull(d.metric), -d.size))

    def plain(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Everything as JSON."""
        found = [self._difference(name) for name in names or self.metrics]
        return {
            "settings": {s.letter: {str(t.folder): {"seed": t.seed} for t in s.trials} for s in self.settings},
            "configuration": {key.name: list(key.values) for key in self.keys},
            "repeated": [str(folder) for folder in self.repeated],
            "changes_along": {key.name: list(key.along) for key in self.keys if key.along},
            "paired": self.is_paired,
            "metrics": {
                d.metric: [_plain(*row) for row in zip(d.values, d.gaps, d.errors, strict=True)] for d in found
            },
        }

    def _difference(self, metric: str) -> Difference:
        values = [setting.over_seeds(metric) for setting in self.settings]
        return Difference(metric, values, [self._error(metric, values, i) for i in range(len(values))])

    def _error(self, metric: str, values: Sequence[OverSeeds | None], i: int) -> float | None:
        """Standard error of the difference between the setting `i` and the first one."""
        first, other = values[0], values[i]
        if i == 0 or first is None or other is None:
            return None
        if self.is_paired and 1 < len(pairs := self._pairs(metric, i)) == first.count == other.count:
            return stdev(b - a for a, b in pairs) / math.sqrt(len(pairs))
        if first.error is None or other.error is None:
            return None
        return math.hypot(first.error, other.error)

    def _pairs(self, metric: str, i: int) -> list[tuple[float, float]]:
        first, other = ({t.seed: t.metrics.get(metric) for t in self.settings[k].trials} for k in (0, i))
        found = [(a, other.get(seed)) for seed, a in first.items()]
        return [(a, b) for a, b in found if a is not None and b is not None]


def _latest(trials: Sequence[Trial]) -> list[Trial]:
    """The latest run of each seed: an older one of the same seed is the same run, not another draw."""
    found = {trial.seed or str(trial.folder): trial for trial in sorted(trials, key=lambda t: t.created)}
    return [trial for trial in trials if trial in found.values()]


def _plain(value: OverSeeds | None, gap: float | None, error: float | None) -> dict[str, Any] | None:
    if value is None:
        return None
    own = {
        "mean": value.mean,
        "standard_error": value.error,
        "n": value.count,
        "values": list(map(float, value.values)),
    }
    return own if gap is None else {**own, "difference": gap, "standard_error_of_difference": error}


def _merged(differing: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The keys that are listed, each with those that change along; the shortest one is listed."""
    groups: dict[Sequence[str], list[str]] = {}
    for key, values in differing.items():
        groups.setdefault(tuple(values), []).append(key)
    found = {}
    for keys in groups.values():
        first = min(keys, key=lambda k: (k.count("."), not k.endswith("_target_"), len(k)))
        found[first] = [key for key in keys if key != first]
    return found


def _is_dull(metric: str) -> bool:
    name = metric.rpartition("/")[2]
    return name in DULL or name.endswith(("_low", "_high"))


def _letter(number: int) -> str:
    return ascii_uppercase[number] if number < 26 else f"{_letter(number // 26 - 1)}{ascii_uppercase[number % 26]}"
