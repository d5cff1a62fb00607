"""Render several runs into one HTML page: which settings differ, and what each metric was, over seeds.

The page needs no other file, no network and no script, and what the runs wrote is text in it, whatever it says.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.errors import DataError
from alignlab.report.design import MOST_LINES, Design
from alignlab.report.differing import ABSENT
from alignlab.report.page import fill
from alignlab.report.panel_drawing import Axis, draw
from alignlab.report.panels import Panels
from alignlab.report.profiles import profiles, shades
from alignlab.report.seeds import OverSeeds
from alignlab.report.trial import COMPLETED, Trial


@dataclass(frozen=True)
class Runs:
    """Runs, by what becomes of them.

    Args:
        compared: completed ones, one for each seed of a setting.
        repeated: older runs of a seed and setting that another run has, too.
        incomplete: all others.
    """

    compared: Sequence[Trial]
    repeated: Sequence[Trial]
    incomplete: Sequence[Trial]

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "Runs":
        """Sort the runs.

        Raises:
            DataError: none has completed.
        """
        done = [t for t in trials if t.status == COMPLETED]
        incomplete = [t for t in trials if t.status != COMPLETED]
        if not done:
            raise DataError("no run has completed: " + "; ".join(f"{t.folder} {t.status}" for t in incomplete[:5]))
        design = Design.of(done)
        latest = {(design.setting(t), t.seed): t for t in sorted(done, key=lambda t: t.created)}
        kept = [t for t in done if not t.seed or latest[(design.setting(t), t.seed)] is t]
        return cls(kept, [t for t in done if t not in kept], incomplete)


def render(trials: Sequence[Trial], now: datetime.datetime) -> str:
    """The page as text.

    Raises:
        DataError: no run has completed, or the completed runs have no metric in common.
    """
    runs = Runs.of(trials)
    design = Design.of(runs.compared)
    panels = Panels.of(runs.compared, design)
    colour = _colours(panels, design)
    content: dict[str, Any] = {
        "runs": runs, "design": design, "panels": panels, "colour": colour, "now": now, "dash": ABSENT,
        "title": _title(runs.compared), "seeds": len({t.seed for t in runs.compared}),
        "settings": len({design.setting(t) for t in runs.compared}), "is_log": Axis.of(design).is_log,
        "places": design.axis.values if design.axis else [""], "several": any(p.count > 1 for p in _points(panels)),
        "profiles": profiles(runs.compared, design), "shades": shades(runs.compared, design),
        "is_shared": 1 < len(set(colour.values())) < len(colour),
        "has_colours": len(set(colour.values())) > 1,
    }  # fmt: skip
    return fill("sweep.html.j2", ("report.css", "sweep.css"), "", content, {"drawn": _drawn(design, colour)})


def _colours(panels: Panels, design: Design) -> dict[str, str]:
    """Class of each line's colour; the first one is the grey of a model that others started from."""
    if all(len(panel.lines) == 1 for panel in panels.shown):
        return dict.fromkeys(panels.lines, "m1")
    first = 1 if design.others else 0
    return {name: f"m{first + i % (MOST_LINES + 1 - first)}" for i, name in enumerate(panels.lines)}


def _drawn(design: Design, colour: Mapping[str, str]) -> Any:
    return lambda panel: draw(panel, design, colour)


def _points(panels: Panels) -> list[OverSeeds]:
    return [point for panel in panels.shown for point in panel.points]


def _title(trials: Sequence[Trial]) -> str:
    names = list(dict.fromkeys(t.experiment for t in trials if t.experiment))
    return names[0] if len(names) == 1 else ""
