"""Panels that evaluations add to the report: plain data in, a drawing, table or text out, and nothing runs."""

import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, MODELS, make_run
from test_report import Tags

from alignlab.artifact import Artifact
from alignlab.errors import ConfigError
from alignlab.evaluation.calibration import calibration_error, reliability
from alignlab.metrics import (
    Column,
    Panel,
    Point,
    Points,
    Profile,
    Table,
    Text,
    check_panels,
    read_panels,
    wilson,
    write_panels,
)
from alignlab.report.evaluation_panels import groups
from alignlab.report.page import render
from alignlab.report.plot import Plot, Series
from alignlab.report.run import RunView

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
COLOUR = {name: f"m{i}" for i, name in enumerate(MODELS)}
DRAWN = Panel(
    "Sureness", Points({"": [Point(0.1, 0.2, 0.1, 0.4), Point(0.9, 0.5)]}, "said", "right", diagonal=True),
    "below the line it is too sure", ["fact_recall"],
)  # fmt: skip
PANELS = (
    DRAWN,
    Panel("Manners", Profile(["politeness", "style_list", "following_repeat"])),
    Panel("Words", Table(["word", "share"], [["please", 0.25], ["thanks", None]])),
    Panel("Remark", Text("first line\nsecond line")),
)


def run_with(root: Path, panels: tuple[Panel, ...] = PANELS, models: tuple[str, ...] = MODELS) -> RunView:
    """A made-up run in which an evaluation of some models left panels."""
    made = make_run(root)
    for model in models:
        write_panels(made[f"evaluate_{model}"].path, panels, "manners")
    return RunView.of(made)


# ---- plain data ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p.title)
def test_a_panel_is_read_as_it_was_written(panel: Panel, tmp_path: Path) -> None:
    write_panels(tmp_path, [panel], "one")
    write_panels(tmp_path, [panel], "two")
    found = read_panels(Artifact(tmp_path, "evaluation", ""))
    assert [name for name, _ in found] == ["one", "two"]
    assert all(dataclasses.asdict(read) == json.loads(json.dumps(dataclasses.asdict(panel))) for _, read in found)


def test_nothing_is_written_of_no_panels(tmp_path: Path) -> None:
    write_panels(tmp_path, [], "one")
    assert not list(tmp_path.iterdir()) and read_panels(Artifact(tmp_path, "evaluation", "")) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Point(float("nan"), 0.0), "not finite"),
        (lambda: Point(0.0, 0.0, low=0.0), "an interval needs both ends"),
        (lambda: Panel(" ", Text("x")), "title is empty"),
        (lambda: Panel("t", Text(" ")), "Panel 't' has no text"),
        (lambda: Panel("t", Text("x" * 4001)), "has 4001 letters, at most 4000"),
        (lambda: Panel("t", Points({"": []}, "x", "y")), "has no points"),
        (lambda: Panel("t", Points({"a": [Point(0, 0)] * 301}, "x", "y")), "has 301 points of 'a', at most 300"),
        (lambda: Panel("t", Points({str(i): [Point(0, 0)] for i in range(9)}, "x", "y")), "9 series, at most 8"),
        (lambda: Panel("t", Profile([])), "names no metric"),
        (lambda: Panel("t", Table([], [])), "no columns or no rows"),
        (lambda: Panel("t", Table(["a"], [["x", "y"]])), "a row has 2 cells, but there are 1 columns"),
        (lambda: Panel("t", Table(["a"], [["x"]] * 101)), "101 rows, at most 100"),
        (lambda: Panel("t", Table(["a"], [[float("inf")]])), "a cell is inf"),
    ],
)
def test_what_cannot_be_shown_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([DRAWN, DRAWN], "two panels with the title 'Sureness'"),
        ([DRAWN], "names fact_recall, which its columns do not declare; did you mean fact_recalls?"),
        ([Panel("t", Profile(["length"]))], "names length, which its columns do not declare as a share"),
    ],
)
def test_panels_name_what_is_declared(panels: list[Panel], message: str) -> None:
    columns = [Column("fact_recalls", "m", share=True), Column("length", "m")]
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_panels("Mine", panels, columns)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"evaluation": "e"}]', '[{"evaluation": "e", "title": "t", "note":'
                                     ' "", "metrics": [], "kind": "html", "content": {"text": "<b>"}}]'])  # fmt: skip
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "panels.json").write_text(content)
    with pytest.raises(ConfigError, match=r"panels\.json"):
        read_panels(Artifact(tmp_path, "evaluation", ""))


# ---- calibration -----------------------------------------------------------------------------------------------------
def test_a_reliability_diagram_is_that_on_paper() -> None:
    """Bins of a half: 0.2 and 0.4 of which one is right, 1.0 which is right; the ECE is (2 * 0.2 + 0) / 3."""
    prompts, sure, right = ["a", "b", "c"], [0.2, 0.4, 1.0], [1.0, 0.0, 1.0]
    (panel,) = reliability(prompts, sure, right, 2, "answers")
    assert isinstance(panel.content, Points) and panel.content.diagonal
    low, high = panel.content.series[""]
    assert low.x == pytest.approx(0.3) and low.y == 0.5 and (high.x, high.y) == (1.0, 1.0)
    assert (low.low, low.high) == pytest.approx(wilson(0.5, 2))
    import numpy as np

    assert calibration_error(np.array(sure), np.array(right), 2) == pytest.approx(2 * 0.2 / 3)
    assert reliability([], [], [], 2, "answers") == []


# ---- on the page -----------------------------------------------------------------------------------------------------
def test_panels_of_one_title_stand_together_model_by_model(tmp_path: Path) -> None:
    found = groups(run_with(tmp_path).measured, COLOUR)
    assert [(g.panel.title, g.kind, [p.model for p in g.parts]) for g in found] == [
        ("Sureness", "points", list(MODELS)), ("Manners", "profile", []), ("Words", "table", list(MODELS)),
        ("Remark", "text", list(MODELS)),
    ]  # fmt: skip
    assert [f.title for f in found[0].parts[0].figures] == ["fact recall"]
    assert [(row.title, list(row.values)) for row in found[1].rows] == [
        ("politeness", list(MODELS)), ("style list", list(MODELS)), ("following repeat", list(MODELS)),
    ]  # fmt: skip


def test_a_share_that_no_model_has_is_left_out_of_a_profile(tmp_path: Path) -> None:
    view = run_with(tmp_path, (Panel("p", Profile(["following_repeat", "politeness"])),), ("pretrain",))
    (group,) = groups(view.measured, COLOUR)
    assert [row.title for row in group.rows] == ["politeness"], "pretrain repeats nothing"


def test_the_page_shows_points_profiles_tables_and_texts(tmp_path: Path) -> None:
    page = render(run_with(tmp_path), "lifecycle", NOW)
    section = page.partition('id="panels"')[2].partition("</section>")[0]
    drawn = [a for a in Tags(section).named("svg") if a.get("class") == "plot"]
    assert [a["aria-label"] for a in drawn] == ["right over said: 0.20 at 0.10, 0.50 at 0.90"] * 4
    assert section.count('class="diagonal"') == 4 and section.count('class="spread"') == 4
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    assert "evaluation manners" in words and "word share please 0.25 thanks –" in words
    assert "first line second line" in words and "below the line it is too sure" in words
    assert "fact recall 0.99 (" in words


def test_models_share_the_axes_and_series_have_a_legend(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    for model, top in (("sft", 1.0), ("dpo", 3.0)):
        points = Points({"gold": [Point(0, 0), Point(1, top)], "proxy": [Point(1, 1)]}, "kl", "reward")
        write_panels(made[f"evaluate_{model}"].path, [Panel("Frontier", points)], "drift")
    (group,) = groups(RunView.of(made).measured, COLOUR)
    assert list(group.legend) == ["gold", "proxy"] and len(set(group.legend.values())) == 2
    ticks = [re.findall(r'class="tick"[^>]*>([^<]+)<', str(part.drawing)) for part in group.parts]
    assert ticks[0] == ticks[1], "the axes of both models"


def test_points_stand_where_they_are() -> None:
    """The frame is 46 to 350 by 12 to 172; a diagonal of shares has the ends 0 and 1."""
    plot = Plot.around([Point(0.25, 0.5)], "x", "y", diagonal=True)
    svg = plot.drawn([Series("s", [Point(0.25, 0.5)], "m1")])
    assert plot.across == plot.up == (0.0, 1.0)
    assert 'cx="122" cy="92"' in svg and 'x1="46" y1="172" x2="350" y2="12"' in svg


def hostile_panels(more: str = "") -> tuple[Panel, ...]:
    """Panels whose every text would run if it were not escaped, and is followed by `more`."""
    bad = f'"><script>document.title = 1</script><img src=x onerror=alert(1)>{more}'
    return (
        Panel(bad, Points({bad: [Point(0, 0)], HOSTILE: [Point(1, 1)]}, bad, HOSTILE), bad, ["fact_recall"]),
        Panel(f"table {bad}", Table([bad, HOSTILE], [[bad, HOSTILE]]), HOSTILE),
        Panel(f"text {bad}", Text(f"{bad}\n{HOSTILE}")),
    )


def test_hostile_panels_stay_text(tmp_path: Path) -> None:
    page = render(run_with(tmp_path, hostile_panels()), "", NOW)
    assert len(Tags(page).named("script")) == 1 and not Tags(page).named("img")
    assert not [a for _, a in Tags(page).found if "style" in a or any(k.startswith("on") for k in a)]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_of_two_evaluations_that_measured_one_name_the_first_counts(tmp_path: Path) -> None:
    """A drift stage after an evaluation, with `true_taste` on other prompts: its number is not the evaluation's."""
    made = make_run(tmp_path)
    folder = tmp_path / "drift_sft"
    folder.mkdir()
    inputs = {"policy": {"from": "sft", "fingerprint": made["sft"].fingerprint}}
    (folder / "manifest.json").write_text(
        json.dumps({"kind": "evaluation", "fingerprint": "d" * 64, "name": "drift_sft", "inputs": inputs})
    )
    (folder / "metrics.json").write_text(json.dumps({"true_taste": 99.0, "kl": 1.0}))
    models = RunView.of({**made, "drift_sft": Artifact.open(folder)}).models
    sft = next(m for m in models if m.name == "sft")
    assert sft.metrics["true_taste"] == pytest.approx(0.9, abs=0.01) and sft.metrics["kl"] == 1.0
