"""Panels of a sweep: which metrics of its runs are shown, with the mean of each setting over its seeds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from alignlab.errors import DataError
from alignlab.metrics import Column, Estimate
from alignlab.report.comparison import NOT_FOR_TABLES
from alignlab.report.design import Design
from alignlab.report.numbers import Format
from alignlab.report.seeds import OverSeeds, beyond
from alignlab.report.trial import Trial

LIMIT = 12
"""Metrics that are shown, at most."""


@dataclass(frozen=True)
class Panel:
    """One metric in every setting.

    Args:
        metric: its name.
        stages: that it is of; several where each has a line of its own.
        column: what it is, where that is known.
        lines: by name of the line and value on the axis.
        by_setting: whether every line belongs to a setting (else to a stage, and lines differ without being swept).
    """

    metric: str
    stages: Sequence[str]
    column: Column | None
    lines: Mapping[str, Mapping[str, OverSeeds]]
    by_setting: bool

    @property
    def title(self) -> str:
        """For readers, with the stage where there is one."""
        return self.column.title if self.column else self.metric.replace("_", " ")

    @property
    def is_measured(self) -> bool:
        """Whether it was measured with an interval, and is not a number of the training itself."""
        return any(isinstance(value, Estimate) for point in self.points for value in point.values)

    @property
    def points(self) -> list[OverSeeds]:
        """Every setting of every line."""
        return [point for line in self.lines.values() for point in line.values()]

    @cached_property
    def written(self) -> Format:
        """How its numbers are written."""
        return Format.of([p.mean for p in self.points], bool(self.column and self.column.share))

    @cached_property
    def differs(self) -> bool:
        """Whether it is not the same in every setting."""
        return any(not _alike(a.mean, b.mean) for a, b in self._pairs())

    @cached_property
    def moved(self) -> tuple[bool, float]:
        """Whether it changed beyond the noise of the seeds, and by how much.

        Of sure changes, how large the largest is: of a share the difference, else the difference over the sum of both.
        Without one, how near the largest comes to being sure.
        """
        found = [(a, b, beyond(a, b)) for a, b in self._pairs()]
        sure = [self._size(a.mean, b.mean) for a, b, distance in found if distance > 1 and not _alike(a.mean, b.mean)]
        return (True, max(sure)) if sure else (False, max((min(1.0, d) for _, _, d in found), default=0.0))

    def _pairs(self) -> Iterator[tuple[OverSeeds, OverSeeds]]:
        groups = [self.points] if self.by_setting else [list(line.values()) for line in self.lines.values()]
        for group in groups:
            yield from combinations(group, 2)

    def _size(self, a: float, b: float) -> float:
        return abs(a - b) / (1.0 if self.column and self.column.share else abs(a) + abs(b))


@dataclass(frozen=True)
class Panels:
    """The panels that are shown.

    Args:
        shown: the headline metrics in the order of their tables, then what moved most.
        more: number of metrics that differ, too.
        same: number of metrics that are the same in every setting.
        apart: number of metrics that only some of the runs have.
        lines: names of all lines, for the legend.
    """

    shown: Sequence[Panel]
    more: int
    same: int
    apart: int
    lines: Sequence[str]

    @classmethod
    def of(cls, trials: Sequence[Trial], design: Design) -> "Panels":
        """Panels of completed runs.

        Raises:
            DataError: the runs have no metric in common.
        """
        common = _common(trials)
        names = [n for n in common if n.partition("/")[2] not in NOT_FOR_TABLES and not _is_of_a_page(n, trials)]
        grouped = _by_setting(names) if design.others else _by_stage(names, trials)
        found = [_panel(stages, metric, trials, design) for metric, stages in grouped]
        moved = [p for p in found if p.differs or not design.axis]
        shown = sorted(moved, key=_place(trials))[:LIMIT]
        used = {line for panel in shown for line in panel.lines}
        order = _order(trials, design)
        apart = len({name for trial in trials for name in trial.metrics}) - len(common)
        more, same = len(moved) - len(shown), len(found) - len(moved)
        return cls(shown, more, same, apart, [n for n in order if n in used])


def _is_of_a_page(name: str, trials: Sequence[Trial]) -> bool:
    """Whether a metric is of a report: its size says nothing of a model."""
    return trials[0].kinds.get(name.partition("/")[0]) == "report"


def _order(trials: Sequence[Trial], design: Design) -> list[str]:
    """Names of lines: settings by their values, stages as the pipeline has them."""
    if design.others:
        return list(design.names.values())
    recorded = [stage for trial in trials for stage in trial.kinds]
    return list(dict.fromkeys([*recorded, *(name.partition("/")[0] for t in trials for name in t.metrics)]))


def _common(trials: Sequence[Trial]) -> list[str]:
    shared = set.intersection(*(set(trial.metrics) for trial in trials))
    if not shared:
        raise DataError("the runs have no metric in common; compare runs whose stages have the same names")
    known = dict.fromkeys(name for trial in trials for name in trial.columns if name in shared)
    return [*known, *(name for name in trials[0].metrics if name in shared and name not in known)]


def _by_setting(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [(metric, [stage]) for stage, _, metric in (name.partition("/") for name in names)]


def _by_stage(names: Sequence[str], trials: Sequence[Trial]) -> list[tuple[str, list[str]]]:
    """Metrics, each with its stages: models that an evaluation measured alike share a panel, all else has its own."""
    found: list[tuple[str, list[str]]] = []
    shared: dict[str, list[str]] = {}
    for stage, _, metric in (name.partition("/") for name in names):
        name, policy = f"{stage}/{metric}", trials[0].kinds.get(stage) == "policy"
        if policy and (name in trials[0].columns or isinstance(trials[0].metrics[name], Estimate)):
            if metric not in shared:
                found.append((metric, shared.setdefault(metric, [])))
            shared[metric].append(stage)
        else:
            found.append((metric, [stage]))
    order = list(trials[0].kinds)
    for stages in shared.values():
        stages.sort(key=order.index)
    return found


def _panel(stages: Sequence[str], metric: str, trials: Sequence[Trial], design: Design) -> Panel:
    column = next((t.columns[n] for t in trials for s in stages if (n := f"{s}/{metric}") in t.columns), None)
    if design.others:
        lines = _over_seeds([(design.line(t), design.place(t), t.metrics[f"{stages[0]}/{metric}"]) for t in trials])
        return Panel(metric, stages, column, lines, True)
    lines = _over_seeds([(s, design.place(t), t.metrics[f"{s}/{metric}"]) for s in stages for t in trials])
    kept = _moving(lines, trials[0].parents) if design.axis else list(lines)
    return Panel(metric, kept or stages, column, {s: lines[s] for s in kept or stages}, not design.axis)


def _over_seeds(found: Sequence[tuple[str, str, float]]) -> dict[str, dict[str, OverSeeds]]:
    values: dict[str, dict[str, list[float]]] = {}
    for line, place, value in found:
        values.setdefault(line, {}).setdefault(place, []).append(value)
    return {line: {place: OverSeeds(v) for place, v in places.items()} for line, places in values.items()}


def _moving(lines: Mapping[str, Mapping[str, OverSeeds]], parents: Mapping[str, str]) -> list[str]:
    """Stages whose numbers differ from setting to setting, and those that they started from."""
    moving = [stage for stage, line in lines.items() if not _is_flat(line)]
    begun = {parents.get(stage, "") for stage in moving}
    return [stage for stage in lines if stage in moving or stage in begun]


def _is_flat(line: Mapping[str, OverSeeds]) -> bool:
    first, *others = (point.mean for point in line.values())
    return all(_alike(first, other) for other in others)


def _alike(a: float, b: float) -> bool:
    """Whether two numbers are the same but for rounding."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _place(trials: Sequence[Trial]) -> Callable[[Panel], tuple[int, bool, bool, bool, float]]:
    """Headlines in the order of their tables; then what moved beyond noise, evaluations first; then the rest."""
    headlines = list(dict.fromkeys(c.metric for t in trials for c in t.columns.values() if c.headline))

    def place(panel: Panel) -> tuple[int, bool, bool, bool, float]:
        is_headline = panel.column is not None and panel.column.headline
        sure, size = panel.moved
        first = headlines.index(panel.metric) if is_headline else len(headlines)
        of_model = any(trials[0].kinds.get(stage) == "policy" for stage in panel.stages)
        return first, not (sure and panel.is_measured), not sure, not of_model, -size

    return place
