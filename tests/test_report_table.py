"""The table of a run: one number format a column, each model held against the one that it started from."""

import io
from pathlib import Path

import pytest
from report_run import MODELS, make_run
from rich.console import Console

from alignlab.report.columns import Column, by_stage, columns_for, duration, number
from alignlab.report.lineage import differences, ends, in_words
from alignlab.report.run import RunView
from alignlab.report.table import final_table

PARENTS = {"sft": "pretrain", "dpo": "sft", "ppo": "sft"}


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_numbers_as_a_reader_takes_them_in() -> None:
    assert [number(v) for v in (0.0, 3.0, 0.123, 12.34, -1.4, 1234.5, 0.00123, 12345.0)] == [
        "0", "3", "0.12", "12.3", "−1.40", "1234", "0.0012", "12\u202f345",
    ]  # fmt: skip
    assert [duration(s) for s in (4.21, 67.0, 7500.0)] == ["4.2 s", "1 min 07 s", "2 h 05 min"]
    assert [Column("m", "m").signed(v) for v in (0.25, -0.25, 0.001)] == ["+0.25", "−0.25", ""]


@pytest.mark.parametrize(
    ("values", "shown", "difference"),
    [
        ((0.0, 2.9, -0.001), ["0.00", "2.90", "0.00"], "−0.50"),
        ((22.5, 9.02, 6.0), ["22.5", "9.0", "6.0"], "−0.5"),
        ((31.0, 150.0), ["31", "150"], ""),
        ((0.00123, 0.0), ["0.0012", "0.0000"], "−0.5000"),
        ((1234.5, 12_345.6), ["1234", "12\u202f346"], ""),
        ((0.0,), ["0.00"], "−0.50"),
    ],
)
def test_a_column_has_one_format(values: tuple[float, ...], shown: list[str], difference: str) -> None:
    (column,) = columns_for({str(i): {"x": value} for i, value in enumerate(values)})
    assert [column.text(value) for value in values] == shown
    assert column.signed(-0.5 if column.decimals else -0.4) == difference


def test_a_change_is_coloured_only_where_it_is_large_and_has_a_direction() -> None:
    better, worse, neither = (Column("m", "m", better=b) for b in (1, -1, 0))
    assert [c.tone(0.5, 0.2) for c in (better, worse, neither)] == [1, -1, 0]
    assert better.tone(0.52, 0.02) == 0


def test_a_base_model_that_does_not_answer_is_no_measure_for_answers() -> None:
    plain, of_answers = Column("plain", ""), Column("wrong", "", of_answers=True)
    models = {
        "pretrain": {"instruction_following": 0.02, "plain": 0.1, "wrong": 0.0},
        "sft": {"instruction_following": 0.9, "plain": 0.4, "wrong": 0.5},
        "dpo": {"instruction_following": 0.9, "plain": 0.3, "wrong": 0.2},
    }
    found = differences(models, [plain, of_answers], {"sft": "pretrain", "dpo": "sft", "pretrain": "elsewhere"})
    assert found["pretrain"] == {}
    assert found["sft"] == {"plain": pytest.approx(0.3)}
    assert found["dpo"] == {"plain": pytest.approx(-0.1), "wrong": pytest.approx(-0.3)}, "from sft, not from pretrain"


def test_who_started_from_whom_in_words() -> None:
    assert in_words(MODELS, PARENTS) == "sft from pretrain, dpo and ppo from sft"
    assert in_words(["a", "b", "c", "d"], dict.fromkeys("bcd", "a")) == "b, c and d from a"
    assert in_words(["sft"], PARENTS) == ""


def test_siblings_both_stand_at_the_end() -> None:
    models = {name: {"instruction_following": float(name != "pretrain"), "x": 1.0} for name in MODELS}
    found = ends(models, Column("x", ""), PARENTS)
    assert found is not None and (found.base, found.last, found.others) == ("pretrain", ["dpo", "ppo"], ["sft"])
    answers = ends(models, Column("x", "", of_answers=True), PARENTS)
    assert answers is not None and (answers.base, answers.last, answers.others) == ("sft", ["dpo", "ppo"], [])
    assert ends({"sft": {"x": 1.0}}, Column("x", ""), PARENTS) is None
    assert ends(models, Column("x", ""), {}) is None


def test_metrics_by_stage_in_the_order_of_a_life() -> None:
    found = by_stage({"zero/a": 1.0, "ppo/a": 1.0, "dpo/a": 1.0, "pretrain/a": 1.0, "sft/a": 1.0, "sft/b": 2.0})
    assert list(found) == ["pretrain", "sft", "dpo", "ppo", "zero"]
    assert found["sft"] == {"a": 1.0, "b": 2.0}


def test_own_files_get_the_columns_that_they_have() -> None:
    files = {"sft": {"answer_loss": 2.0, "preference_accuracy": 0.5, "answer_length": 4.0}}
    assert [c.metric for c in columns_for(files)] == ["answer_loss", "preference_accuracy", "answer_length"]
    assert [c.metric for c in columns_for({"a": {"x": 1.0, "steps": 3.0}})] == ["x"]


# ---- the table in the terminal ---------------------------------------------------------------------------------------
def table_text(metrics: dict[str, float]) -> str:
    console = Console(width=100, file=io.StringIO())
    table = final_table(metrics, PARENTS)
    if table is not None:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_final_table_fits_100_columns_and_shows_every_model(tmp_path: Path) -> None:
    run = RunView.of(make_run(tmp_path))
    metrics = {f"{m.name}/{k}": v for m in run.models for k, v in m.metrics.items()}
    metrics |= {"reward_model/accuracy": 0.79, "reward_model/held_out_pairs": 219.0}
    text = table_text(metrics)
    assert all(len(line) <= 100 for line in text.splitlines())
    rows = [line.split() for line in text.splitlines() if line.split()[:1] and line.split()[0] in MODELS]
    assert rows[0] == ["pretrain", "0.00", "0.99", "–", "–", "0.00", "0.00", "31.0", "−1.40"]
    assert [row[0] for row in rows] == list(MODELS)
    below = [line.split() for line in text.splitlines() if line.lstrip()[:1] in ("+", "−")]
    assert [row[-1] for row in below] == ["+2.30", "+1.30", "+1.50"], "dpo and ppo from sft, sft from pretrain"
    assert "(sft from pretrain, dpo and ppo from sft)" in " ".join(text.split())
    assert "right order 0.79" in text and "219 held-out pairs" in " ".join(text.split())


def test_final_table_of_a_run_without_evaluation_shows_what_there_is() -> None:
    alone = table_text({"sft/validation_loss": 0.61, "sft/steps": 20.0})
    assert "0.61" in alone and "difference" not in alone
    assert table_text({"label/agreement_with_reference": 0.8}) == "label: choices agree with true taste 0.80.\n"
    assert table_text({"label/train_pairs": 80.0}) == ""
