"""experiments/overoptimisation: its scoring of warning signals on curves made by hand, and its page."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from alignlab.config.compose import session

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "overoptimisation"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a file of the finding."""
    monkeypatch.syspath_prepend(FOLDER.parent)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in ("sweeps", "signals", "measured", "figure", "collect"):
        sys.modules.pop(name, None)


@pytest.fixture
def signals(script: Callable[[str], ModuleType]) -> ModuleType:
    """How signals are scored."""
    return script("signals")


STEPS = [10.0 * i for i in range(9)]
KL = [0.0, 0.1, 0.4, 0.9, 1.6, 2.5, 3.6, 4.9, 6.4]
FALLING = [0.0, 1.0, 2.0, 3.0, 4.0, 3.8, 3.0, 2.0, 1.0]
"""The peak is point 4; with a margin of 0.5 it has fallen from point 6 on."""
RISING = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


def curve(signals: ModuleType, gold: list[float], signal: list[float], group: int = 0) -> object:
    """A run with one signal."""
    return signals.Curve(STEPS, KL, gold, 0.5, {"s": signal}, group)


def test_smoothing_looks_ahead_for_the_truth_alone(signals: ModuleType) -> None:
    values = [0.0, 3.0, 6.0, 0.0]
    assert signals.smooth(values, 3) == [1.5, 3.0, 3.0, 3.0]
    assert signals.trailing(values, 3) == [0.0, 1.5, 3.0, 3.0]
    assert signals.smooth(values, 1) == signals.trailing(values, 1) == values


def test_noise_is_told_from_neighbours(signals: ModuleType) -> None:
    """+1, -1 by turns differ by 2: a deviation of sqrt(2); means over 8 of those differ by sqrt(2) sqrt(2 / 8)."""
    values = [1.0, -1.0] * 10
    assert signals.noise(values) == pytest.approx(math.sqrt(2))
    assert signals.significant(values, 8) == pytest.approx(3 * math.sqrt(2) / 2)
    assert signals.noise([0.0] * 5) == 0.0


def test_the_fall_is_where_the_margin_is_lost_for_good(signals: ModuleType) -> None:
    falling, rising = (curve(signals, gold, KL) for gold in (FALLING, RISING))
    assert (falling.peak, falling.fall, rising.peak, rising.fall) == (4, 6, 8, None)
    back = curve(signals, [0.0, 4.0, 2.0, 3.0, 3.9, 3.0, 2.0, 1.0, 0.0], KL)
    assert (back.peak, back.fall) == (1, 5), "a dip that is made up for is not a fall"
    assert curve(signals, [4.0] * 8 + [3.6], KL).fall is None


@pytest.mark.parametrize(
    ("threshold", "outcome", "lead", "lead_kl", "lost"),
    [
        (0.0, "early", 50.0, 3.5, 3.0),  # at point 1: three units were still to be gained
        (1.5, "in time", 20.0, 2.0, 0.0),  # at the peak
        (2.0, "in time", 10.0, 1.1, 0.2),  # past it, within the margin
        (4.0, "late", -10.0, -1.3, 2.0),
        (9.0, "late", None, None, 3.0),  # no alarm: one trains to the end
    ],
)
def test_an_alarm_is_early_in_time_or_late(
    signals: ModuleType, threshold: float, outcome: str, lead: float | None, lead_kl: float | None, lost: float
) -> None:
    found = signals.score(curve(signals, FALLING, KL), "s", threshold)
    assert found.outcome == outcome and found.lead == lead
    assert (found.lead_kl, found.lost) == pytest.approx((lead_kl, lost))


def test_an_alarm_without_a_fall_is_false(signals: ModuleType) -> None:
    run = curve(signals, RISING, KL)
    assert signals.score(run, "s", 2.0) == signals.Score("false", None, None, 1.5)
    assert signals.score(run, "s", 9.0) == signals.Score("quiet", None, None, 0.0)


def test_a_threshold_is_chosen_on_the_other_groups(signals: ModuleType) -> None:
    """With these signals, an alarm at the peak takes a threshold from 0.9 to 1.6; twice that where they are doubled."""
    alike = [curve(signals, FALLING, KL, group) for group in (0, 1)]
    best = signals.best_threshold(alike, "s")
    assert best == pytest.approx(1.25)
    assert [s.lost for s in signals.held_out(alike, "s")] == [0.0, 0.0]
    doubled = [alike[0], curve(signals, FALLING, [2 * x for x in KL], 1)]
    # The first is judged by 2.5, which it passes at point 6; the second by 1.25, which it passes at point 3.
    found = [(s.outcome, s.lost) for s in signals.held_out(doubled, "s")]
    assert found == [("late", pytest.approx(1.0)), ("early", pytest.approx(1.0))]


def test_every_alarm_can_be_had_by_some_threshold(signals: ModuleType) -> None:
    run = curve(signals, FALLING, [0.0, 2.0, 1.0, 3.0, 3.0, 0.0, 5.0, 5.0, 5.0])
    alarms = [signals.alarm(run.signals["s"], t) for t in signals.thresholds([run], "s")]
    assert alarms == [1, 3, 6, None], "only records can be the first above a threshold"


def test_the_area_under_the_curve_counts_pairs_of_points(signals: ModuleType) -> None:
    assert signals.auc([curve(signals, FALLING, KL)], "s") == 1.0
    assert signals.auc([curve(signals, FALLING, [-x for x in KL])], "s") == 0.0
    assert signals.auc([curve(signals, FALLING, [1.0] * 9)], "s") == 0.5
    # A run that only rises adds nine points that must not alarm: (0, ..., 6.4) against (1.6, ..., 6.4).
    both = [curve(signals, FALLING, KL), curve(signals, RISING, KL)]
    below, equal = 4 * 5 + (4 + 5 + 6 + 7 + 8), 5
    assert signals.auc(both, "s") == pytest.approx((below + equal / 2) / (5 * 13))


def test_leads_of_alarms_are_ordered(signals: ModuleType) -> None:
    scores = [signals.score(curve(signals, FALLING, KL), "s", t) for t in (0.0, 1.5, 4.0, 9.0)]
    assert signals.median_lead(scores) == 20.0
    assert signals.median_lead([signals.score(curve(signals, RISING, KL), "s", 0.0)]) is None


# ---- what is measured ------------------------------------------------------------------------------------------------
def test_the_best_of_two_of_three_answers_is_that_of_every_pair(script: Callable[[str], ModuleType]) -> None:
    """Of the pairs of three, the lowest wins none, the middle one wins one and the highest two."""
    rows = [{"liked": 3.0, "gold": 6.0}, {"liked": 1.0, "gold": 90.0}, {"liked": 2.0, "gold": 3.0}]
    best_of = script("measured").best_of
    assert best_of(rows, "liked", 2, "gold") == pytest.approx((3 + 2 * 6) / 3)
    assert best_of(rows, "liked", 1, "gold") == pytest.approx(33.0) and best_of(rows, "liked", 3, "gold") == 6.0


def test_a_watcher_does_not_see_what_is_still_to_come(script: Callable[[str], ModuleType]) -> None:
    measured = script("measured")
    points = {c: [1.0 + math.sin(k + i) / 2 for i in range(30)] for k, c in enumerate(measured.COLUMNS)}
    points["step"] = [2.0 * i for i in range(30)]
    later = {c: [*values[:20], *(9.0 * x for x in values[20:])] for c, values in points.items()}
    now, then = (measured.watched(p, 0).signals for p in (points, later))
    assert now.keys() == measured.SIGNALS.keys()
    for name in now:
        assert now[name][:20] == then[name][:20], name
        assert now[name][20:] != then[name][20:], name


# ---- the page --------------------------------------------------------------------------------------------------------
def test_the_page_shows_the_tables(script: Callable[[str], ModuleType]) -> None:
    collect, measured, sweeps = script("collect"), script("measured"), script("sweeps")
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    runs, curves = sweeps.load(FOLDER / "results.csv"), measured.load_curves(FOLDER / "curves.csv")
    for table in collect.tables(runs, curves):
        assert table in page
    for setting in measured.SETTINGS:
        assert {r.seed for r in runs if r.setting == setting} >= {0, 1, 2}, setting
    assert curves.keys() == {(setting, seed) for setting in measured.PPO for seed in {r.seed for r in runs}}


def test_the_experiment_composes(script: Callable[[str], ModuleType]) -> None:
    measured = script("measured")
    with session() as composer:
        pipeline = composer.compose(["experiment=overoptimisation"])["pipeline"]
    assert {*measured.PPO, *measured.DPO, "start", "samples"} <= pipeline.keys()
    assert all(pipeline[name]["reward"]["weights"]["gold"] == 0 for name in measured.PPO), "the truth teaches nothing"
