"""Design of a sweep: the keys in which its runs differ, and which of them goes on the axis."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from alignlab.report.differing import ABSENT, keys_that_differ
from alignlab.report.trial import Trial, as_number

NOT_A_SETTING = ("seed", "store_dir", "hydra", "tracking", "rerun", "sweep")
"""Keys, and beginnings of keys, that name a seed, a folder or a way of running; none of them is compared."""
MOST_LINES = 7
"""Lines that have a colour of their own."""
LONG = 40
"""Characters of a value in a name."""

Setting = tuple[str, ...]
"""Values of several keys."""


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
        return trial.value(self.key) or ABSENT


@dataclass(frozen=True)
class Design:
    """The settings that are compared, and how they are drawn.

    Args:
        swept: every key in which the runs differ.
        axis: the horizontal axis: one of the keys, or all of them together; None where nothing differs.
        others: the keys that a line is drawn for each value of.
        names: of whole settings, by their values; used where keys are drawn together.
    """

    swept: Sequence[Swept] = ()
    axis: Swept | None = None
    others: Sequence[Swept] = ()
    names: Mapping[Setting, str] = field(default_factory=dict)

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "Design":
        """The design of these runs: on the axis the key with most values, a number where there is one.

        Where three keys or more would ask for more lines than can be told apart, each setting has a place of its own.
        """
        typed = list(dict.fromkeys(k for trial in trials for k in trial.overrides if not _is_no_setting(k)))
        keys = [*typed, *_hidden(typed, trials)]
        swept = _merged([s for key in keys if len((s := _swept(key, trials)).values) > 1], trials)
        if not swept:
            return cls()
        order = sorted(swept, key=lambda s: (s.numbers is None, -len(s.values)))
        others = [s for s in swept if s is not order[0]]
        names = _names(others, trials)
        if len(others) > 1 and len(names) > MOST_LINES:
            names = _names(swept, trials)
            return cls(swept, Swept("setting", list(names.values())), (), names)
        return cls([order[0], *others], order[0], others, names)

    @property
    def is_joint(self) -> bool:
        """Whether each setting has a place of its own on the axis."""
        return self.axis is not None and self.axis not in self.swept

    def place(self, trial: Trial) -> str:
        """A run's place on the axis."""
        if self.axis is None:
            return ""
        return self.names[self.setting(trial)] if self.is_joint else self.axis.of(trial)

    def line(self, trial: Trial) -> str:
        """Name of the line that a run belongs to, where others are swept, too."""
        return self.names[tuple(s.of(trial) for s in self.others)]

    def setting(self, trial: Trial) -> Setting:
        """A run's values of all keys."""
        return tuple(s.of(trial) for s in self.swept)


def _names(swept: Sequence[Swept], trials: Sequence[Trial]) -> dict[Setting, str]:
    """Short names of the settings of some keys, each once: options by themselves, values after the name of their key.

    What a run does not have is left out.
    """
    place = [{value: i for i, value in enumerate(s.values)} for s in swept]
    settings = {tuple(s.of(trial) for s in swept) for trial in trials}
    found: dict[Setting, str] = {}
    for setting in sorted(settings, key=lambda v: [p[value] for p, value in zip(place, v, strict=True)]):
        parts = [v if len(swept) == 1 or trials[0].chooses(s.key) else f"{s.title} {v}"
                 for s, v in zip(swept, setting, strict=True) if v != ABSENT or len(swept) == 1]  # fmt: skip
        name = ", ".join(dict.fromkeys(part if len(part) <= LONG else f"{part[:LONG]}…" for part in parts)) or ABSENT
        taken = list(found.values())
        found[setting] = next(n for i in count(1) if (n := name if i == 1 else f"{name} ({i})") not in taken)
    return found


def _is_no_setting(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/", f"{name}@")) for name in NOT_A_SETTING)


def _hidden(typed: Sequence[str], trials: Sequence[Trial]) -> list[str]:
    """Keys in which runs of the same overrides differ: a file of options, code or data was changed.

    Without them, different experiments would be averaged as one with several seeds.
    """
    setting = [tuple(trial.value(key) or ABSENT for key in typed) for trial in trials]
    counts = Counter(setting)
    # A setting of one run is averaged with nothing, so that its file is not read.
    several = [i for i, found in enumerate(setting) if counts[found] > 1]
    of_setting = [setting[i] for i in several]
    hidden = [
        key
        for key, values in keys_that_differ([trials[i] for i in several]).items()
        if len(set(zip(of_setting, values, strict=True))) > len(set(of_setting))
    ]
    # Of keys that change together, the last one is shown: the one nearest to the top.
    return sorted(hidden, key=lambda key: key.count("."), reverse=True)


def _swept(key: str, trials: Sequence[Trial]) -> Swept:
    values = list(dict.fromkeys(trial.value(key) or ABSENT for trial in trials))
    return Swept(key, sorted(values, key=lambda v: (as_number(v) is None, as_number(v) or 0.0)))


def _merged(swept: Sequence[Swept], trials: Sequence[Trial]) -> list[Swept]:
    """Keys that always change together as one, under the name of the one that tells most."""
    groups: dict[tuple[int, ...], list[Swept]] = {}
    for key in swept:
        numbers: dict[str, int] = {}
        same = tuple(numbers.setdefault(key.of(trial), len(numbers)) for trial in trials)
        groups.setdefault(same, []).append(key)
    return [_named(group, trials) for group in groups.values()]


def _named(group: Sequence[Swept], trials: Sequence[Trial]) -> Swept:
    """The key that most runs have tells most; then an option (dpo and ipo, each with a beta of its own); then a number.

    Of several, the one that came last.
    """
    lacking = {s.key: sum(s.of(trial) == ABSENT for trial in trials) for s in group}
    chosen = min(reversed(group), key=lambda s: (lacking[s.key], not trials[0].chooses(s.key), s.numbers is None))
    return Swept(chosen.key, chosen.values, tuple(s.key for s in group if s is not chosen))
