"""Design of a sweep: the keys in which its runs differ, and which of them goes on the axis."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from alignlab.report.trial import Trial, as_number

NOT_A_SETTING = ("seed", "store_dir", "hydra", "tracking", "rerun", "sweep")
"""Keys, and beginnings of keys, that name a seed, a folder or a way of running; none of them is compared."""
NONE = "–"
"""Value of a key that a run does not have."""


@dataclass(frozen=True)
class Swept:
    """A key in which runs differ.

    Args:
        key: as typed.
        values: each once; numbers in rising order, others as they were met.
        along: further keys whose values change exactly when this one's do.
    """

    key: str
    values: Sequence[str]
    along: Sequence[str] = ()

    @property
    def numbers(self) -> list[float] | None:
        """The values as numbers; None where one of them is not a number."""
        found = [number for value in self.values if (number := as_number(value)) is not None]
        return found if len(found) == len(self.values) else None

    @property
    def title(self) -> str:
        """The key's last part, or what stands before it too where that says little."""
        last = self.key.rpartition(".")[2]
        return last.partition("@")[2].rpartition(".")[2] or last if "@" in last else last

    def of(self, trial: Trial) -> str:
        """A run's value."""
        return trial.value(self.key) or NONE


@dataclass(frozen=True)
class Design:
    """Which settings are compared, and how they are drawn.

    Args:
        axis: the key on the horizontal axis; None where nothing differs.
        others: the keys that a line is drawn for each value of.
    """

    axis: Swept | None = None
    others: Sequence[Swept] = field(default_factory=tuple)

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "Design":
        """The design of these runs: on the axis the key with most values, a number where there is one."""
        keys = dict.fromkeys(key for trial in trials for key in trial.overrides if not _is_no_setting(key))
        swept = _merged([s for key in keys if len((s := _swept(key, trials)).values) > 1], trials)
        order = sorted(swept, key=lambda s: (s.numbers is None, -len(s.values)))
        return cls(order[0], tuple(s for s in swept if s is not order[0])) if order else cls()

    @property
    def keys(self) -> list[Swept]:
        """All keys, that of the axis first."""
        return [*([self.axis] if self.axis else []), *self.others]

    def place(self, trial: Trial) -> str:
        """A run's value on the axis."""
        return self.axis.of(trial) if self.axis else ""

    def line(self, trial: Trial) -> str:
        """Name of the line that a run belongs to; empty where there is one line only."""
        if len(self.others) == 1:
            return self.others[0].of(trial)
        return ", ".join(f"{s.title} {s.of(trial)}" for s in self.others)

    def setting(self, trial: Trial) -> tuple[str, ...]:
        """A run's values of all keys."""
        return tuple(s.of(trial) for s in self.keys)


def _is_no_setting(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/", f"{name}@")) for name in NOT_A_SETTING)


def _swept(key: str, trials: Sequence[Trial]) -> Swept:
    values = list(dict.fromkeys(trial.value(key) or NONE for trial in trials))
    return Swept(key, sorted(values, key=lambda v: (as_number(v) is None, as_number(v) or 0.0)))


def _merged(swept: Sequence[Swept], trials: Sequence[Trial]) -> list[Swept]:
    """Keys that always change together as one, under the name of the one that tells most."""
    groups: dict[tuple[int, ...], list[Swept]] = {}
    for key in swept:
        numbers: dict[str, int] = {}
        same = tuple(numbers.setdefault(key.of(trial), len(numbers)) for trial in trials)
        groups.setdefault(same, []).append(key)
    return [_named(group, trials[0]) for group in groups.values()]


def _named(group: Sequence[Swept], trial: Trial) -> Swept:
    """An option tells most (dpo and ipo, each with a beta of its own); then a number; then the key that came last."""
    chosen = min(reversed(group), key=lambda s: (not trial.chooses(s.key), s.numbers is None))
    return Swept(chosen.key, chosen.values, tuple(s.key for s in group if s is not chosen))
