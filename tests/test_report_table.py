"""Comparison of a run's models: what is shown, what is beyond noise, and the table in the terminal."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from report_run import EVALUATIONS, MODELS, PROMPT_COUNT, changed, make_run
from rich.console import Console

from alignlab.artifact import Artifact
from alignlab.metrics import Column, Estimate
from alignlab.report.comparison import Comparison, compare
from alignlab.report.lineage import ends, in_words
from alignlab.report.numbers import Format, duration, number
from alignlab.report.run import RunView, StageView
from alignlab.report.table import final_table

PARENTS = {"sft": "pretrain", "dpo": "sft", "ppo": "sft"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return RunView.of(make_run(tmp_path_factory.mktemp("run")))


def share(value: float, prompts: int = PROMPT_COUNT) -> Estimate:
    found = Estimate.share((f"p{i}", i < round(value * prompts)) for i in range(prompts))
    assert found is not None
    return found


def run_of(
    models: Mapping[str, Mapping[str, float]],
    columns: Sequence[Column],
    parents: Mapping[str, str] = PARENTS,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> RunView:
    """A run of evaluated models."""
    stages: dict[str, StageView] = {}
    for name, metrics in models.items():
        policy = Artifact(Path(name), "policy", name)
        config = {"config": (settings or {}).get(name, {})}
        evaluation = Artifact(Path(f"evaluate_{name}"), "evaluation", f"evaluate_{name}", config)
        made_from = {"policy": parents[name]} if name in parents else {}
        stages[name] = StageView(name, policy, made_from, {}, {})
        stages[f"evaluate_{name}"] = StageView(
            f"evaluate_{name}", evaluation, {"policy": name}, metrics, {"world": columns}
        )
    return RunView(stages)


def compared(models: Mapping[str, Mapping[str, float]], *columns: Column) -> Comparison:
    return compare(run_of(models, columns))


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_numbers_as_a_reader_takes_them_in() -> None:
    assert [number(v) for v in (0.0, 3.0, 0.123, 12.34, -1.4, 1234.5, 0.00123, 12345.0)] == [
        "0", "3", "0.12", "12.3", "−1.40", "1234", "0.0012", "12\u202f345",
    ]  # fmt: skip
    assert [duration(s) for s in (4.21, 67.0, 7500.0)] == ["4.2 s", "1 min 07 s", "2 h 05 min"]
    assert [Format().signed(v) for v in (0.25, -0.25, 0.001)] == ["+0.25", "−0.25", ""]


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
def test_a_metric_has_one_format(values: tuple[float, ...], shown: list[str], difference: str) -> None:
    written = Format.of(values, share=False)
    assert [written.text(value) for value in values] == shown
    assert written.signed(-0.5 if written.decimals else -0.4) == difference


def test_a_whole_number_in_an_interval_that_is_not_keeps_its_decimals() -> None:
    assert Format.of([Estimate(1.0, 0.25, 2.5)], share=False).decimals == 2
    assert Format.of([Estimate(31.0, 30.0, 32.0), 5.0], share=False).decimals == 0


def test_intervals_are_written_with_their_number_of_decimals() -> None:
    assert Format(1).interval((9.04, 12.26)) == "9.0 to 12.3" and Format().interval(None) == ""
    assert Format().narrow((0.25, 0.5)) == "0.25–0.50" and Format().narrow(None) == ""
    assert Format().narrow((-1.5, -0.5)) == "−1.50…−0.50", "a dash before a minus would be read as another minus"


# ---- what is beyond noise --------------------------------------------------------------------------------------------
def test_a_change_is_coloured_only_beyond_noise_and_where_it_has_a_direction() -> None:
    better, worse, neither = (Column(n, "x", better=b, share=True) for n, b in (("up", 1), ("down", -1), ("flat", 0)))
    models = {name: dict.fromkeys(("up", "down", "flat"), share(value)) for name, value in (("sft", 0.2), ("dpo", 0.5))}
    found = compared(models, better, worse, neither)
    changes = [found.change("dpo", c) for c in (better, worse, neither)]
    assert [c.tone(k) for c, k in zip(changes, (better, worse, neither), strict=True) if c] == [1, -1, 0]
    assert all(c is not None and c.is_sure and c.value == pytest.approx(0.3) for c in changes)


def test_a_difference_within_noise_is_not_coloured_however_large() -> None:
    column = Column("up", "x", better=1, share=True)
    few = compared({"sft": {"up": share(0.4, 10)}, "dpo": {"up": share(0.6, 10)}}, column)
    plain = compared({"sft": {"up": 0.1}, "dpo": {"up": 0.9}}, column)
    for found in (few, plain):
        change = found.change("dpo", column)
        assert change is not None and not change.is_sure and change.tone(column) == 0


def test_a_base_model_that_does_not_answer_is_not_compared_with() -> None:
    plain, of_answers = Column("plain", "x"), Column("wrong", "x", only_if="following")
    models = {
        "pretrain": {"following": 0.02, "plain": 0.1, "wrong": 0.0},
        "sft": {"following": 0.9, "plain": 0.4, "wrong": 0.5},
        "dpo": {"following": 0.9, "plain": 0.3, "wrong": 0.2},
    }
    found = compared(models, Column("following", "x"), plain, of_answers)
    assert found.change("pretrain", plain) is None
    assert found.change("sft", plain) is not None and found.change("sft", of_answers) is None
    change = found.change("dpo", of_answers)
    assert change is not None and change.value == pytest.approx(-0.3), "from sft, not from pretrain"


# ---- what is shown ---------------------------------------------------------------------------------------------------
def test_a_plugins_metric_is_shown_beside_those_of_a_built_in_evaluation(run: RunView) -> None:
    shown = [c.metric for c in compare(run).shown]
    assert "politeness" in shown and "instruction_following" in shown


def test_metrics_are_in_the_order_in_which_they_are_declared(run: RunView) -> None:
    shown = [c.metric for c in compare(run).shown]
    assert shown[:2] == ["instruction_following", "fact_recall"] and shown[-2:] == ["true_taste", "politeness"]


def test_what_moved_most_is_shown_though_it_is_no_headline() -> None:
    columns = Column("a", "x", share=True, headline=True), Column("b", "x", share=True), Column("c", "x", share=True)
    models = {"sft": {"a": share(0.5), "b": share(1.0), "c": share(0.5)}}
    collapsed = compared({**models, "dpo": {"a": share(0.7), "b": share(0.46), "c": share(0.3)}}, *columns)
    assert [c.metric for c in collapsed.shown] == ["a", "b"]
    assert [c.metric for c, _ in collapsed.headlines()] == [], "no metric is better or worse"
    steady = compared({**models, "dpo": {"a": share(0.9), "b": share(0.9), "c": share(0.5)}}, *columns)
    assert [c.metric for c in steady.shown] == ["a"]
    noise = compared(
        {"sft": {"a": share(0.5), "b": share(1.0, 3)}, "dpo": {"a": share(0.5), "b": share(0.4, 3)}}, *columns
    )
    assert [c.metric for c in noise.shown] == ["a"]


def test_cards_are_the_first_metric_and_what_moved_most_in_the_order_of_the_table() -> None:
    columns = [Column(f"m{i}", "x", share=True, better=1, headline=True) for i in range(6)]
    sft = {f"m{i}": share(0.2) for i in range(6)}
    dpo = {f"m{i}": share(0.2 + 0.1 * size) for i, size in enumerate((0, 0, 6, 1, 5, 3))}
    assert [c.metric for c, _ in compared({"sft": sft, "dpo": dpo}, *columns).headlines()] == ["m0", "m2", "m4", "m5"]


def test_every_step_has_its_turn_on_the_cards() -> None:
    """The first step moves everything from 0 to nearly 1; what the second one lost is on a card all the same."""
    columns = [Column(f"m{i}", "x", share=True, better=1, headline=True) for i in range(6)]
    base, tuned = ({f"m{i}": share(value - 0.01 * i) for i in range(6)} for value in (0.05, 0.99))
    found = compared({"pretrain": base, "sft": tuned, "dpo": {**tuned, "m5": share(0.46)}}, *columns)
    assert "m5" in [c.metric for c, _ in found.headlines()]


def test_models_are_in_the_order_of_the_pipeline() -> None:
    models = {name: {"a": 1.0} for name in ("zero", "ppo", "dpo")}
    assert list(compared(models, Column("a", "x")).models) == ["zero", "ppo", "dpo"]


def test_a_run_without_evaluation_shows_what_its_stages_measured(run: RunView) -> None:
    alone = RunView({"sft": dataclasses.replace(run.stages["sft"], parents={})})
    found = compare(alone)
    assert list(found.models) == ["sft"] and [c.metric for c in found.shown] == ["validation_loss", "train_loss"]


def test_a_model_from_elsewhere_goes_by_its_evaluation(run: RunView) -> None:
    alone = RunView({"evaluate_dpo": run.stages["evaluate_dpo"]})
    assert list(compare(alone).models) == ["evaluate_dpo"]


# ---- lineage ---------------------------------------------------------------------------------------------------------
def test_who_started_from_whom_in_words() -> None:
    assert in_words(MODELS, PARENTS) == "sft from pretrain, dpo and ppo from sft"
    assert in_words(["a", "b", "c", "d"], dict.fromkeys("bcd", "a")) == "b, c and d from a"
    assert in_words(["sft"], PARENTS) == ""


def test_siblings_both_stand_at_the_end() -> None:
    models = {name: {"following": float(name != "pretrain"), "x": 1.0} for name in MODELS}
    found = ends(models, Column("x", "x"), PARENTS)
    assert found is not None and (found.base, found.last, found.others) == ("pretrain", ["dpo", "ppo"], ["sft"])
    answers = ends(models, Column("x", "x", only_if="following"), PARENTS)
    assert answers is not None and (answers.base, answers.last, answers.others) == ("sft", ["dpo", "ppo"], [])
    assert ends({"sft": {"x": 1.0}}, Column("x", "x"), PARENTS) is None
    assert ends(models, Column("x", "x"), {}) is None


# ---- measured alike? -------------------------------------------------------------------------------------------------
def test_another_reference_is_flagged_and_its_metric_not_compared(tmp_path: Path) -> None:
    found = compare(RunView.of(make_run(tmp_path, settings={"ppo": changed(3.0)})))
    assert found.remarks == [
        "ppo was not measured as pretrain was: rewards.true_taste.raters.honest.taste.right is 3.0 and not 2.0; "
        "true_taste cannot be compared between the two"
    ]
    assert "true_taste" not in found.changes["ppo"] and "fact_recall" in found.changes["ppo"]
    assert "true_taste" in found.changes["dpo"]


def test_two_models_that_share_another_reference_are_compared_with_each_other(tmp_path: Path) -> None:
    settings = {name: changed(3.0) for name in ("sft", "dpo", "ppo")}
    found = compare(RunView.of(make_run(tmp_path, settings=settings)))
    assert len(found.remarks) == 3
    assert "true_taste" not in found.changes["sft"] and "true_taste" in found.changes["dpo"]


def test_another_setting_of_the_evaluation_makes_all_its_metrics_incomparable(tmp_path: Path) -> None:
    more = {**EVALUATIONS, "world": {**EVALUATIONS["world"], "samples_per_question": 1}}
    found = compare(RunView.of(make_run(tmp_path, settings={"dpo": more})))
    assert found.changes["dpo"].keys() == {"politeness"}
    assert found.remarks == [
        "dpo was not measured as pretrain was: samples_per_question is 1 and not 3; no number of world can be compared "
        "between the two"
    ]


def test_a_reference_that_names_itself_differently_is_flagged_without_a_configuration() -> None:
    columns = [Column("taste", "x", argument="rewards.taste", reference=f"taste of {who}") for who in ("anna", "ben")]
    first, second = (run_of({name: {"taste": 1.0}}, [c]) for name, c in zip(("sft", "dpo"), columns, strict=True))
    found = compare(RunView({**first.stages, **second.stages}))
    assert found.remarks == [
        "dpo was not measured as sft was: taste by taste of ben and not by taste of anna; taste cannot be compared "
        "between the two"
    ]


# ---- the table in the terminal ---------------------------------------------------------------------------------------
def table_text(run: RunView, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    table = final_table(run)
    if table is not None:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_final_table_fits_80_columns_and_shows_every_model(run: RunView) -> None:
    text = table_text(run)
    lines = [line.rstrip() for line in text.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == list(MODELS)
    rows = {line[:24].strip(): line[24:].split() for line in lines if line[:1].isalpha()}
    assert rows["instruction following"] == ["↑", "0.00", "0.97", "+0.97", "0.98", "+0.01", "0.96", "−0.01"]
    assert rows["confident when wrong"] == ["↓", "–", "0.33", "0.06", "−0.27", "0.09", "−0.24"]
    assert lines[lines.index(next(x for x in lines if x.startswith("fact recall"))) + 1].split() == [
        "0.96–1.00", "0.95–0.99", "0.94–0.99", "0.94–0.99",
    ]  # fmt: skip
    words = " ".join(text.split())
    assert "(sft from pretrain, dpo and ppo from sft)" in words and "true taste: measured by TrueTaste of" in words
    assert "reward_model: accuracy 0.79 (0.73 to 0.84)." in words
    assert "label: agreement with reference 0.83 (0.78 to 0.87)." in words


def test_more_models_than_fit_stand_below_each_other() -> None:
    models = {f"a_model_of_a_long_name_{i}": {"x": 1.0, "y": 2.0} for i in range(7)}
    text = table_text(run_of(models, [Column("x", "x", headline=True), Column("y", "y", headline=True)], {}), 60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert [text.count(name) for name in models] == [1] * 7
    assert text.count("What became of the model") == 1


def test_colours_say_better_worse_and_noise(run: RunView) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="standard", legacy_windows=False)
    table = final_table(run)
    assert table is not None
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for shown in ("\x1b[32m +0.97", "\x1b[31m −0.79", "\x1b[2m −0.01"):
        assert shown in text
    assert "0.52 +0.52" in text, "style is neither better nor worse: plain"


def test_final_table_of_a_run_without_evaluation_shows_what_there_is(run: RunView) -> None:
    alone = table_text(RunView({"sft": dataclasses.replace(run.stages["sft"], parents={})}))
    assert "0.61" in alone and "difference" not in alone and "interval" not in alone
    assert (
        table_text(RunView({"label": run.stages["label"]})) == "label: agreement with reference 0.83 (0.78 to 0.87).\n"
    )
    silent = dataclasses.replace(run.stages["label"], columns={})
    assert table_text(RunView({"label": silent})) == ""


def test_a_hostile_name_is_made_harmless() -> None:
    text = table_text(run_of({"x\x1b[31m": {"a": 1.0}}, [Column("a", "a", title="b\x1b[2J", headline=True)], {}))
    assert "\x1b" not in text and "\ufffd[31m" in text and "\ufffd[2J" in text
