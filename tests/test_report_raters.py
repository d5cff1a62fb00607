"""Raters of a report: their agreement as on paper, and their weights measured back from choices."""

import datetime
import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from report_run import HOSTILE, make_run
from test_report import Tags

from alignlab.artifact import Artifact
from alignlab.judgements.weights import measured_weights
from alignlab.report.agreement import Cell, agreement_of, judgements_of
from alignlab.report.biases import Biases, biases_of
from alignlab.report.page import render
from alignlab.report.raters import labelling
from alignlab.report.run import RunView, StageView

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


def view(folder: Path) -> StageView:
    return StageView("label", Artifact(folder, "preferences", "x"), {}, {}, {})


def write_judgements(folder: Path, made: Sequence[tuple[str, str, int | None]]) -> None:
    """Judgements of two answers each: item, rater, and number of the preferred answer; None for a tie."""
    rows = [
        {"id": item, "prompt": "p", "answers": ["a", "b"], "rater": rater, "choice": choice, "tie": choice is None}
        for item, rater, choice in made
    ]
    (folder / "judgements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


# ---- agreement -------------------------------------------------------------------------------------------------------
def test_agreement_of_two_raters_is_that_on_paper(tmp_path: Path) -> None:
    """Of four items both say 0, 0, 1 three times: 3/4; by chance (3/4 * 1/2 + 1/4 * 1/2) = 1/2, so kappa is 1/2."""
    ana, bo = [0, 0, 1, 0], [0, 0, 1, 1]
    made = [(str(i), name, said[i]) for i in range(4) for name, said in (("ana", ana), ("bo", bo))]
    write_judgements(tmp_path, [*made, ("9", "cy", 1)])
    found = agreement_of(judgements_of(view(tmp_path)))
    assert found is not None and found.raters == ["ana", "bo"] and found.items == 4
    assert found.cells["ana", "bo"] == found.cells["bo", "ana"] == Cell(0.75, 0.5, 4)
    # Krippendorff 2011 with 5 zeros and 3 ones: D_o = 2/8, D_e = 30/56.
    assert found.krippendorff == pytest.approx(1 - 7 * 2 / 30)


def test_judgements_of_one_rater_each_have_no_matrix(tmp_path: Path) -> None:
    write_judgements(tmp_path, [("0", "ana", 0), ("1", "bo", 1)])
    found = agreement_of(judgements_of(view(tmp_path)))
    assert found is not None and not found.cells and found.krippendorff is None
    (tmp_path / "judgements.jsonl").unlink()
    assert agreement_of(judgements_of(view(tmp_path))) is None


def test_the_raters_with_the_most_judgements_are_in_the_matrix(tmp_path: Path) -> None:
    made = [(str(i), f"r{number:02d}", 0) for number in range(14) for i in range(number + 1)]
    write_judgements(tmp_path, made)
    found = agreement_of(judgements_of(view(tmp_path)))
    assert found is not None and found.left_out == 2 and found.raters == [f"r{n:02d}" for n in range(2, 14)]


def test_of_labels_that_several_made_each_rater_is_looked_at(tmp_path: Path) -> None:
    """A label of three judgements names no rater; what each of them prefers is read from the judgements."""
    label = {"prompt": "p", "chosen": "a b", "rejected": "c", "split": "train", "judgements": 2}
    (tmp_path / "preferences.jsonl").write_text(json.dumps(label) + "\n")
    rows = [
        {"id": str(i), "prompt": f"p{i}", "answers": ["a b", "c"], "rater": rater, "choice": int(rater == "bo")}
        for i in range(30)
        for rater in ("ana", "bo")
    ]
    (tmp_path / "judgements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = labelling([view(tmp_path)])
    assert [(r.name, r.judgements) for r in found.raters] == [("all judgements", 60), ("ana", 30), ("bo", 30)]
    assert [float(r.leans[0].share) for r in found.raters] == [0.5, 1.0, 0.0], "longer"


def test_the_raters_with_the_most_judgements_are_shown(tmp_path: Path) -> None:
    pair = {"prompt": "p", "chosen": "a b", "rejected": "c", "split": "train"}
    rows = [{**pair, "rater": f"r{number:02d}"} for number in range(14) for _ in range(number + 1)]
    (tmp_path / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = labelling([view(tmp_path)])
    assert [r.name for r in found.raters] == ["all judgements", *(f"r{n:02d}" for n in range(2, 14))]


@pytest.mark.parametrize(("observed", "shade"), [(0.0, "a0"), (0.5, "a0"), (0.65, "a1"), (0.95, "a4"), (1.0, "a4")])
def test_shades(observed: float, shade: str) -> None:
    assert Cell(observed, None, 1).shade == shade


# ---- weights ---------------------------------------------------------------------------------------------------------
def test_one_feature_and_a_place_are_solved_on_paper() -> None:
    """Shown first, it wins 30 of 40 with the feature, 20 of 40 without: w + b = ln 3, b - w = 0; w = b = ln(3) / 2."""
    gaps = [[1.0]] * 40 + [[-1.0]] * 40
    first = [True] * 30 + [False] * 10 + [True] * 20 + [False] * 20
    weight, place = measured_weights(gaps, first, [str(i) for i in range(80)])
    assert (float(weight), float(place)) == pytest.approx((math.log(3) / 2, math.log(3) / 2), abs=1e-3)
    # Information of each log-odds: 40 * 3/16 and 40 / 4; the variance of w is a quarter of the sum of their inverses.
    error = math.sqrt((1 / 7.5 + 1 / 10) / 4)
    assert weight.interval == pytest.approx((float(weight) - 1.96 * error, float(weight) + 1.96 * error), abs=0.01)


def test_known_flips_do_not_shrink_a_weight() -> None:
    """With a quarter of flips, 65 % of 'first' means that (0.65 - 0.25) / 0.5 = 0.8 is meant: ln 4."""
    gaps, first = [[1.0]] * 200 + [[-1.0]] * 200, ([True] * 130 + [False] * 70) + ([False] * 130 + [True] * 70)
    plain, known = (measured_weights(gaps, first, [str(i) for i in range(400)], flip)[0] for flip in (0.0, 0.25))
    assert float(known) == pytest.approx(math.log(4), abs=2e-3)
    assert float(plain) == pytest.approx(math.log(0.65 / 0.35), abs=2e-3)


def test_judgements_of_one_prompt_are_not_independent_and_what_always_wins_is_not_sure() -> None:
    gaps, first = [[1.0]] * 75 + [[-1.0]] * 75, ([True] * 50 + [False] * 25) * 2
    alone, _ = measured_weights(gaps, first, [str(i) for i in range(150)])
    together, _ = measured_weights(gaps, first, [str(i // 25) for i in range(150)])
    assert width(together) > 1.5 * width(alone)
    always, _ = measured_weights([[1.0], [-1.0]] * 50, [True, False] * 50, [str(i) for i in range(100)])
    assert 4 < float(always) < 12 and width(always) > 8


def width(estimate: Any) -> float:
    low, high = estimate.interval
    return float(high - low)


WEIGHTS = {"ana": {"list": 1.5, "hedge": 0.0, "position": 0.5}, "bo": {"list": -1.0, "hedge": 2.0, "position": 0.0}}


def write_log(folder: Path, count: int = 800, change: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
    """Choices of two raters, drawn with their weights from features that are there or not."""
    draw, rows = random.Random(0), []
    for i in range(count):
        rater = ("ana", "bo")[i % 2]
        weights = WEIGHTS[rater]
        seen = {f"{place}_{f}": float(draw.random() < 0.5) for place in ("first", "second") for f in ("list", "hedge")}
        odds = sum(weights[f] * (seen[f"first_{f}"] - seen[f"second_{f}"]) for f in ("list", "hedge"))
        first = draw.random() < 1 / (1 + math.exp(-odds - weights["position"]))
        row = {"rater": rater, "prompt": f"p{i}", "first_preferred": first, "tie": False, "flip": 0.0, **seen,
               "first_polite": 0.0, "second_polite": 0.0, "weight_polite": 0.7,
               **{f"weight_{name}": weight for name, weight in weights.items()}}  # fmt: skip
        change(row)
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), folder / "judgements.parquet")


def by_name(found: Biases | None) -> Mapping[tuple[str, str], Any]:
    assert found is not None
    return {(r.rater, w.feature): w for r in found.raters for w in r.weights}


def test_weights_are_measured_next_to_what_was_configured(tmp_path: Path) -> None:
    write_log(tmp_path)
    found = biases_of(view(tmp_path))
    weights = by_name(found)
    assert {key: w.configured for key, w in weights.items()} == pytest.approx(
        {(rater, f): w for rater, given in WEIGHTS.items() for f, w in given.items()}
    )
    assert found is not None and found.holding == found.count == 6, "fixed draws: each interval holds"
    assert all(w.measured.interval[0] > 0 for (r, f), w in weights.items() if WEIGHTS[r][f] > 1), "told from 0"
    assert [list(r.unseen) for r in found.raters] == [["polite"]] * 2, "no pair differs in it"


def test_a_wrong_configuration_is_seen(tmp_path: Path) -> None:
    write_log(tmp_path, change=lambda row: row.update(weight_list=-3.0))
    weights = by_name(biases_of(view(tmp_path)))
    assert not weights["ana", "list"].holds and weights["ana", "position"].holds


def test_ties_and_few_judgements_are_left_out(tmp_path: Path) -> None:
    write_log(tmp_path, 90)
    assert biases_of(view(tmp_path)) is None, "45 judgements of each"
    write_log(tmp_path, 400, lambda row: row.update(tie=row["rater"] == "bo"))
    found = biases_of(view(tmp_path))
    assert found is not None and [r.rater for r in found.raters] == ["ana"]


def test_a_log_without_configured_weights_has_none(tmp_path: Path) -> None:
    assert biases_of(view(tmp_path)) is None
    pq.write_table(pa.Table.from_pylist([{"rater": "a", "tie": False}]), tmp_path / "judgements.parquet")
    assert biases_of(view(tmp_path)) is None


# ---- on the page -----------------------------------------------------------------------------------------------------
def test_the_page_has_the_matrix_and_the_weights_and_names_stay_text(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    folder = made["label"].path
    write_judgements(folder, [(str(i), rater, i % 2) for i in range(20) for rater in ("ana", HOSTILE)])
    write_log(folder, change=lambda row: row.update(rater=HOSTILE if row["rater"] == "ana" else "bo"))
    page = render(RunView.of(made), "", NOW)
    section = page.partition('id="raters"')[2].partition("</section>")[0]
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    assert "100 % κ 1.00, n 20" in words and "6 of 6 intervals hold what was configured" in words
    assert len(Tags(page).named("script")) == 1 and not Tags(page).named("img")
    drawn = [a["aria-label"] for a in Tags(section).named("svg") if "configured" in str(a.get("aria-label"))]
    assert len(drawn) == 6 and all(re.fullmatch(r"\w+: measured .* \(.*\), configured .*", str(a)) for a in drawn)


def test_the_page_says_in_a_sentence_that_nothing_was_judged_twice(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    write_judgements(made["label"].path, [(str(i), "ana", 0) for i in range(20)])
    section = render(RunView.of(made), "", NOW).partition('id="raters"')[2]
    assert "No answers were judged by two raters, so their agreement is not known" in section
    assert 'class="matrix"' not in section
