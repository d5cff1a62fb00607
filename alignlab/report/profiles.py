"""Profiles of a sweep: shares that an evaluation declares as a profile, with a dot for each setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignlab.metrics import Estimate, Panel, Profile
from alignlab.report.design import Design
from alignlab.report.dots import DotRow
from alignlab.report.seeds import OverSeeds
from alignlab.report.trial import Trial

COLOURS = 8
"""Settings that can be told apart by colour; a sweep of more has no profiles."""


@dataclass(frozen=True)
class ProfileView:
    """One profile of one policy.

    Args:
        stage: the policy's.
        title: of the panel.
        note: on how it is read.
        rows: a line for each share that differs from 0, with a value for each setting.
        names: of the settings.
    """

    stage: str
    title: str
    note: str
    rows: Sequence[DotRow]
    names: Sequence[str]


def profiles(trials: Sequence[Trial], design: Design) -> list[ProfileView]:
    """Profiles of the policies that differ from setting to setting; nothing where there are too many settings."""
    if not 1 < len(_names(trials, design)) <= COLOURS:
        return []
    declared: dict[tuple[str, str], Panel] = {}
    for trial in trials:
        declared = {**trial.profiles, **declared}
    found = [_profile(stage, panel, trials, design) for (stage, _), panel in declared.items()]
    return [view for view in found if any(len(set(row.values.values())) > 1 for row in view.rows)]


def shades(trials: Sequence[Trial], design: Design) -> dict[str, str]:
    """Class of the colour of each setting."""
    return {name: f"m{(i + 1) % COLOURS}" for i, name in enumerate(_names(trials, design))}


def _names(trials: Sequence[Trial], design: Design) -> list[str]:
    """Names of the settings, in the order of the page."""
    order = list(design.axis.values) if design.axis else []
    named = {_name(t, design): order.index(design.place(t)) if design.place(t) in order else 0 for t in trials}
    return sorted(named, key=lambda name: named[name])


def _name(trial: Trial, design: Design) -> str:
    place = design.place(trial)
    return f"{design.line(trial)}, {place}" if design.others else place


def _profile(stage: str, panel: Panel, trials: Sequence[Trial], design: Design) -> ProfileView:
    names = _names(trials, design)
    metrics = panel.content.metrics if isinstance(panel.content, Profile) else ()
    rows = [_row(f"{stage}/{metric}", metric, names, trials, design) for metric in metrics]
    return ProfileView(stage, panel.title, panel.note, [row for row in rows if any(row.values.values())], names)


def _row(key: str, metric: str, names: Sequence[str], trials: Sequence[Trial], design: Design) -> DotRow:
    by_name = {n: [t.metrics[key] for t in trials if _name(t, design) == n and key in t.metrics] for n in names}
    column = next((t.columns[key] for t in trials if key in t.columns), None)
    values: Mapping[str, float] = {name: _mean(OverSeeds(found)) for name, found in by_name.items() if found}
    title = column.title if column else metric.replace("_", " ")
    return DotRow(title, values, column.better if column else 0, column.meaning if column else "")


def _mean(over: OverSeeds) -> Estimate:
    """The mean over seeds with its interval."""
    low, high = over.interval or (None, None)
    return Estimate(over.mean, low, high, over.count)
