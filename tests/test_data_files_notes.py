"""What flows with the text: facts of a prompt, numbers on a judgement, scores of an answer, from file to artifact."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alignlab.artifact import ANSWERS, PREFERENCES, Artifact
from alignlab.data import answers, judgement, preferences
from alignlab.data.files import Files
from alignlab.data.preflight import check_data, check_settings
from alignlab.data.records import Comparison, Example, Message, Prompt
from alignlab.data.source import Need
from alignlab.errors import DataError, MissingDataError
from alignlab.preferences import ImportPreferences
from alignlab.stage import StageContext

PAIR = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "No."}


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def notes_of(file: str) -> Mapping[str, float]:
    (pair,) = Files(preferences=file, validation_fraction=0.0).comparisons("train")
    return pair.notes


# ---- facts -----------------------------------------------------------------------------------------------------------
def test_a_question_carries_its_reference_answer_and_named_columns(tmp_path: Path) -> None:
    row = {"question": "2 + 2?", "answer": "It is\n#### 4", "level": 3, "hard": False, "topic": "sums", "score": 0.5}
    file = write(tmp_path / "a.jsonl", row)
    files = Files(instructions=file, facts=["topic", "level", "hard", "answer"], validation_fraction=0.0)
    (prompt,) = files.prompts("train")
    assert prompt.facts == (("answer", "It is\n#### 4"), ("topic", "sums"), ("level", "3"), ("hard", "false"))
    assert prompt.fact("answer").endswith("#### 4") and prompt.fact("level") == "3"
    assert files.notes()[0].endswith("(columns not used: score); carried with the prompts: answer, hard, level, topic")


def test_a_fact_that_is_not_there_names_those_that_are() -> None:
    prompt = Prompt((Message("user", "2 + 2?"),), facts=(("level", "3"),))
    with pytest.raises(DataError, match=r"'2 \+ 2\?' has no fact 'answer' \(it has level\).*data\.facts=\[answer\]"):
        prompt.fact("answer")
    with pytest.raises(DataError, match=r"it has no facts"):
        Prompt.user("x").fact("answer")


def test_facts_follow_every_shape_and_a_missing_value_is_no_fact(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows: list[dict[str, Any]] = [
        {"messages": turns},
        {"instruction": "Hi", "output": "Hello"},
        {"prompt": "Hi", "completion": "Hello"},
        {"instruction": "Hi", "instances": [{"output": "Hello"}]},
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    ]
    for row in rows:
        file = write(tmp_path / "a.jsonl", {**row, "id": 7}, {**row, "id": None}, {**row, "id": math.nan})
        files = Files(instructions=file, facts=["id"], validation_fraction=0.0)
        assert [e.prompt.facts for e in files.instructions("train")] == [(("id", "7"),), (), ()]
    pairs = Files(preferences=write(tmp_path / "b.jsonl", {**PAIR, "id": "x"}), facts=["id"], validation_fraction=0.0)
    assert pairs.comparisons("train")[0].prompt.fact("id") == "x"
    labelled = {"prompt": "Hi", "completion": "Hello", "label": True, "id": 1.5}
    marked = Files(labelled=write(tmp_path / "c.jsonl", labelled), facts=["id"], validation_fraction=0.0)
    assert marked.labelled("train")[0].prompt.fact("id") == "1.5"


def test_a_fact_is_one_value(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"question": "a", "answer": "b", "tags": ["x"]})
    with pytest.raises(DataError, match=r"field 'tags' must be a text, a number or true or false, as data"):
        Files(instructions=file, facts=["tags"], validation_fraction=0.0).instructions("train")


def test_one_question_with_two_reference_answers_is_asked_with_both(tmp_path: Path) -> None:
    rows = [{"question": "A prime?", "answer": a} for a in ("2", "3", "2")]
    files = Files(instructions=write(tmp_path / "a.jsonl", *rows), validation_fraction=0.0)
    prompts = files.prompts("train")
    assert [p.fact("answer") for p in prompts] == ["2", "3"] and prompts[0] == prompts[1] == Prompt.user("A prime?")


# ---- notes on a judgement --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"margin": 1.5}, {"margin": 1.5}),
        ({"margin": -2, "agreement": 1}, {"margin": -2.0, "agreement": 1.0}),
        ({"probability": 0.25}, {"probability": 0.25}),
        ({"tie": 1, "margin": 0}, {"tie": 1.0, "margin": 0.0}),
        ({"tie": True}, {"tie": 1.0}),
        ({"tie": False}, {"tie": 0.0}),
        ({"score_chosen": 8.5, "score_rejected": 6}, {"margin": 2.5}),
        ({"score_chosen": 8.5, "score_rejected": 6, "margin": 2.5}, {"margin": 2.5}),
        ({"score_chosen": 8.5}, {}),
        ({"margin": None, "agreement": math.nan, "probability": ""}, {}),
        ({"probability": 0.2, "first_preferred": True}, {"probability": 0.2}),
        ({"probability": 0.2, "first_preferred": False}, {"probability": 0.8}),
    ],
)
def test_notes_are_read_from_columns(tmp_path: Path, columns: dict[str, Any], expected: dict[str, float]) -> None:
    assert notes_of(write(tmp_path / "a.jsonl", {**PAIR, **columns})) == pytest.approx(expected)
    out = io.StringIO()
    csv.writer(out).writerows(
        [[*PAIR, *columns], [*PAIR.values(), *("" if v is None else v for v in columns.values())]]
    )
    (tmp_path / "a.csv").write_text(out.getvalue())
    assert notes_of(str(tmp_path / "a.csv")) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"probability": 1.2}, r"field 'probability' must be from 0 to 1 \(the probability that the chosen .*got 1\.2"),
        ({"agreement": 3}, r"field 'agreement' must be from 0 to 1 \(the share of the judges .*rename the column"),
        ({"margin": "large"}, r"field 'margin' must be a number, found 'large'; rename the column"),
        ({"margin": math.inf}, r"field 'margin' must be a finite number, got inf"),
        ({"margin": True}, r"field 'margin' must be a number, found True"),
        (
            {"tie": 2},
            r"field 'tie' must be from 0 to 1 \(1 where neither answer was preferred, .*\), got 2",
        ),
        (
            {"score_chosen": 3, "score_rejected": 1, "margin": 5},
            r"field 'margin' is 5, but score_chosen - score_rejected is 2",
        ),
        ({"probability": 0.5, "first_preferred": "maybe"}, r"field 'first_preferred' must be true or false"),
    ],
)
def test_notes_out_of_their_range_are_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:1: {message}"):
        notes_of(write(tmp_path / "a.jsonl", {**PAIR, **columns}))


def test_columns_that_become_notes_are_not_called_unused_and_others_are(tmp_path: Path) -> None:
    row = {**PAIR, "margin": 1, "score_chosen": 3, "rater": "x"}
    files = Files(preferences=write(tmp_path / "a.jsonl", row), validation_fraction=0.0)
    assert files.comparisons("train")
    assert files.notes()[0].endswith("(columns not used: score_chosen, rater)")
    asked = Files(instructions=write(tmp_path / "b.jsonl", row), validation_fraction=0.0)
    assert asked.instructions("train")
    assert asked.notes()[0].endswith("(columns not used: margin, score_chosen, rater)")


def test_notes_do_not_tell_comparisons_apart() -> None:
    prompt = Prompt.user("a")
    assert Comparison(prompt, "b", "c", notes={"margin": 1.0}) == Comparison(prompt, "b", "c")
    assert hash(Comparison(prompt, "b", "c", notes={"margin": 1.0})) == hash(Comparison(prompt, "b", "c"))


# ---- preferences.jsonl -----------------------------------------------------------------------------------------------
def artifact(folder: Path, name: str, *rows: Any) -> Artifact:
    folder.mkdir()
    write(folder / name, *rows)
    return Artifact.open(folder)


def test_notes_and_facts_come_back_out_of_preferences(tmp_path: Path) -> None:
    prompt = Prompt((Message("system", "Be kind."), Message("user", "2 + 2?")), facts=(("answer", "4"), ("id", "a")))
    pair = Comparison(prompt, "4", "5", notes={"probability": 0.75, "margin": -1.0, "tie": 0.0})
    made = artifact(tmp_path / "a", PREFERENCES, preferences.row(pair, "train", rater="x", source="f.jsonl:3"))
    assert made.kind == "preferences"
    (found,) = preferences.read(made, "train")
    assert found == pair and found.notes == pair.notes and found.prompt.facts == prompt.facts
    assert found.source == "f.jsonl:3"


def test_a_pair_without_notes_or_facts_is_written_as_before(tmp_path: Path) -> None:
    line = preferences.row(Comparison(Prompt.user("a"), "b", "c"), "train")
    assert set(line) == {"prompt", "chosen", "rejected", "split"}


@pytest.mark.parametrize(("first", "probability"), [(True, 0.3), (False, 0.3), (True, 1.0), (False, 0.0)])
def test_a_judgement_as_it_was_made_becomes_the_probability_of_the_chosen_answer(
    tmp_path: Path, first: bool, probability: float
) -> None:
    expected = probability if first else 1 - probability
    logged = {"rater": "x", "probability": probability, "first_preferred": first}
    line = preferences.row(Comparison(Prompt.user("a"), "b", "c"), "train", **logged)
    assert line["probability"] == probability and line["first_preferred"] is first, "kept as it was made"
    before = {k: v for k, v in line.items() if k != "notes"}  # as earlier versions wrote it
    for number, written in enumerate((line, before)):
        (found,) = preferences.read(artifact(tmp_path / str(number), PREFERENCES, written), "train")
        assert found.notes == pytest.approx({"probability": expected})
    (read_as_file,) = Files(preferences=str(tmp_path / "0" / PREFERENCES), validation_fraction=0.0).comparisons("train")
    assert read_as_file.notes == pytest.approx({"probability": expected})
    assert judgement.of_chosen(probability, first) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": {"probability": 3}}, r"must be from 0 to 1"),
        ({"notes": [1]}, r"notes must be an object of numbers, found list"),
        ({"facts": {"a": 1}}, r"facts must be an object of texts"),
        ({"split": "test"}, r"split must be train or validation, found 'test'"),
        ({"chosen": 3}, r"chosen must be text"),
    ],
)
def test_a_bad_line_of_preferences_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    line = {**preferences.row(Comparison(Prompt.user("a"), "b", "c"), "train"), **change}
    with pytest.raises(DataError, match=rf"preferences\.jsonl:1: a preference needs .*{message}"):
        preferences.read(artifact(tmp_path / "a", PREFERENCES, line), "train")


def test_import_carries_notes_and_facts_to_the_artifact(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Is {i} even?", "chosen": "Surely.", "rejected": "No.", "agreement": 0.75, "id": i}
        for i in range(30)
    ]
    data = Files(preferences=write(tmp_path / "a.jsonl", *rows), facts=["id"], validation_fraction=0.3)
    (tmp_path / "made").mkdir()
    ImportPreferences(data=data).run({}, StageContext("preferences", tmp_path / "made", tmp_path))
    found = preferences.read(Artifact.open(tmp_path / "made"), "train")
    assert all(c.notes == {"agreement": 0.75} and f"Is {c.prompt.fact('id')} even?" == c.prompt.text for c in found)


# ---- answers.jsonl ---------------------------------------------------------------------------------------------------
def test_answers_come_back_with_facts_and_scores(tmp_path: Path) -> None:
    prompt = Prompt((Message("user", "2 + 2?"),), facts=(("answer", "4"),))
    examples = [
        Example(prompt, "4", kind="sum", scores={"correct": 1.0, "length": -0.5}),
        Example(Prompt.user("Hi"), "Hello"),
    ]
    rows = [answers.row(e, "train", index=i) for i, e in enumerate(examples)]
    rows.append(answers.row(Example(Prompt.user("Held?"), "Out."), "validation"))
    (tmp_path / "a").mkdir()
    answers.write(tmp_path / "a", rows)
    made = Artifact.open(tmp_path / "a")
    assert made.kind == "answers"
    found = answers.read(made, "train")
    assert found == examples and [e.scores for e in found] == [examples[0].scores, {}]
    assert found[0].prompt.fact("answer") == "4" and found[0].source == "answers.jsonl:1"
    assert [e.answer for e in answers.read(made, "validation")] == ["Out."]
    assert set(rows[1]) == {"prompt", "answer", "split", "index"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 3}, "answer must be text"),
        ({"split": "dev"}, "split must be train or validation, found 'dev'"),
        ({"scores": {"a": "much"}}, "field 'a' must be a number, found 'much'"),
        ({"prompt": "Hi"}, "message 1 must be an object"),
    ],
)
def test_a_bad_line_of_answers_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    line = {**answers.row(Example(Prompt.user("Hi"), "Hello"), "train"), **change}
    with pytest.raises(DataError, match=rf"answers\.jsonl:1: an answer needs prompt, answer and split \({message}"):
        answers.read(artifact(tmp_path / "a", ANSWERS, line), "train")


def test_a_file_without_answers_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"answers\.jsonl holds no answer"):
        answers.read(artifact(tmp_path / "a", ANSWERS), "train")


# ---- scores of an answer, from columns -------------------------------------------------------------------------------
def test_columns_become_scores_of_the_answer(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "completion": "Hello", "helpfulness": 3, "verbosity": "1.5", "note": "x"}
    unrated = {"prompt": "Ho", "completion": "Hello", "helpfulness": None}
    file = write(tmp_path / "a.jsonl", row, unrated)
    files = Files(instructions=file, scores=["helpfulness", "verbosity"], validation_fraction=0.0)
    assert [e.scores for e in files.instructions("train")] == [{"helpfulness": 3.0, "verbosity": 1.5}, {}]
    assert "(columns not used: note); carried with the answers: helpfulness, verbosity" in files.notes()[0]


def test_a_score_is_of_the_last_answer_of_a_conversation(tmp_path: Path) -> None:
    said = [{"role": r, "content": f"{r} {n}"} for n in (1, 2) for r in ("user", "assistant")]
    files = Files(
        instructions=write(tmp_path / "a.jsonl", {"messages": said, "good": 2}), scores=["good"], validation_fraction=0
    )
    assert [(e.answer, e.scores) for e in files.instructions("train")] == [
        ("assistant 1", {}),
        ("assistant 2", {"good": 2.0}),
    ]


def test_a_score_that_is_no_number_or_no_column_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "Hi", "completion": "Hello", "rating": "good"})
    with pytest.raises(DataError, match="field 'rating' must be a number, found 'good'"):
        Files(instructions=file, scores=["rating"], validation_fraction=0.0).instructions("train")
    problems = Files(instructions=file, scores=["stars"], validation_fraction=0.0).check([Need("instructions")])
    assert problems == ["data.scores names stars, which no file of instructions has"]


def test_ratings_that_a_stage_learns_from_are_asked_for_before_anything_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "Hi", "completion": "Hello", "good": None, "bad": 1})
    need = Need("instructions", scores=("good", "bad"))
    with pytest.raises(MissingDataError, match=r"data is missing; set data.scores=\[bad,good\].* for rated"):
        check_settings({"rated": [(Files(instructions=file, scores=["bad"], validation_fraction=0.0), need)]})
    named = Files(instructions=file, scores=["good", "bad"], validation_fraction=0.0)
    with pytest.raises(DataError, match="Files has no instructions to train on with the score good"):
        check_data({"rated": [(named, need)]})
