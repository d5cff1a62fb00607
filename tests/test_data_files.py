"""Files: shapes, splits, bad input, digests; each message names file, line and what to do."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignlab.artifact import Artifact
from alignlab.data import preferences
from alignlab.data.files import Files
from alignlab.data.records import Comparison, Document, Example, Labelled, Message, Prompt
from alignlab.data.source import DataSource
from alignlab.errors import ConfigError
from alignlab.preferences import ImportPreferences
from alignlab.stage import StageContext

Q, A, B = "Name a colour.", "Blue.", "Whatever."
ASK = Prompt.user(Q)
TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": Q},
    {"role": "assistant", "content": A},
]
HH = f"\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: {Q}\n\nAssistant: "
HH_PROMPT = Prompt((Message("user", "Hello"), Message("assistant", "Hi."), Message("user", Q)))


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def everything(role: str, file: Any, **more: Any) -> list[Any]:
    """All records of one role, nothing held out."""
    method = {
        "corpus": "documents",
        "instructions": "instructions",
        "preferences": "comparisons",
        "labelled": "labelled",
    }
    return list(getattr(Files(**{role: file}, validation_fraction=0.0, **more), method[role])("train"))


INSTRUCTIONS = {
    "alpaca": ({"instruction": Q, "input": "", "output": A}, [Example(ASK, A)]),
    "alpaca without input": ({"instruction": Q, "output": A}, [Example(ASK, A)]),
    "alpaca with input": (
        {"instruction": "Translate.", "input": "bleu", "output": A},
        [Example(Prompt.user("Translate.\n\nbleu"), A)],
    ),
    "messages": (
        {"messages": TURNS},
        [Example(Prompt((Message("system", "Be short."), Message("user", Q))), A)],
    ),
    "prompt_completion": ({"prompt": Q, "completion": A}, [Example(ASK, A)]),
    "prompt_completion of messages": ({"prompt": TURNS[1:2], "completion": TURNS[2:]}, [Example(ASK, A)]),
    "prompt_completion_label": ({"prompt": Q, "completion": A, "label": True}, [Example(ASK, A)]),
    "question_answer": ({"question": Q, "answer": A}, [Example(ASK, A)]),
    "self_instruct": (
        {"instruction": Q, "instances": [{"input": "", "output": A}, {"input": "x", "output": B}]},
        [Example(ASK, A), Example(Prompt.user(f"{Q}\n\nx"), B)],
    ),
    "the chosen answer": ({"prompt": Q, "chosen": A, "rejected": B}, [Example(ASK, A)]),
}
PREFERENCES = {
    "prompt_chosen_rejected": ({"prompt": Q, "chosen": A, "rejected": B}, Comparison(ASK, A, B)),
    "alpaca_chosen_rejected": (
        {"instruction": Q, "input": "", "output": A, "chosen": A, "rejected": B},
        Comparison(ASK, A, B),
    ),
    "transcripts": ({"chosen": HH + A, "rejected": HH + B}, Comparison(HH_PROMPT, A, B)),
    "transcripts as messages": (
        {"chosen": TURNS[1:], "rejected": [TURNS[1], {"role": "assistant", "content": B}]},
        Comparison(ASK, A, B),
    ),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instruction_shapes_are_told_by_their_columns(tmp_path: Path, name: str) -> None:
    row, expected = INSTRUCTIONS[name]
    assert everything("instructions", write(tmp_path / "a.jsonl", row)) == expected


@pytest.mark.parametrize("name", PREFERENCES)
def test_preference_shapes_are_told_by_their_columns(tmp_path: Path, name: str) -> None:
    row, expected = PREFERENCES[name]
    assert everything("preferences", write(tmp_path / "a.jsonl", row)) == [expected]


ANSWERS = [{"role": "assistant", "content": a} for a in (A, B)]
LONGER = [*TURNS, {"role": "user", "content": "Another."}]
PROMPTED = {
    "a system column": (
        {"system": "Be short.", "prompt": Q, "chosen": A, "rejected": B},
        Comparison(Prompt.user(Q, "Be short."), A, B),
    ),
    "answers as messages": ({"prompt": Q, "chosen": ANSWERS[:1], "rejected": ANSWERS[1:]}, Comparison(ASK, A, B)),
    "the prompt once more in each answer": (
        {"prompt": Q, "chosen": [TURNS[1], ANSWERS[0]], "rejected": [TURNS[1], ANSWERS[1]]},
        Comparison(ASK, A, B),
    ),
    "with the system's message": (
        {"prompt": Q, "chosen": [*TURNS[:2], ANSWERS[0]], "rejected": [*TURNS[:2], ANSWERS[1]]},
        Comparison(Prompt.user(Q, "Be short."), A, B),
    ),
    "a longer conversation that begins with the prompt": (
        {"prompt": Q, "chosen": [*LONGER, ANSWERS[0]], "rejected": [*LONGER, ANSWERS[1]]},
        Comparison(Prompt(tuple(Message(m["role"], m["content"]) for m in LONGER)), A, B),
    ),
    "a transcript as the prompt": ({"prompt": HH, "chosen": A, "rejected": B}, Comparison(HH_PROMPT, A, B)),
    "transcripts beside their prompt": (
        {"prompt": HH, "chosen": HH + A, "rejected": HH + B},
        Comparison(HH_PROMPT, A, B),
    ),
}


@pytest.mark.parametrize("name", PROMPTED)
def test_a_conversation_beside_its_prompt_keeps_all_its_turns(tmp_path: Path, name: str) -> None:
    row, expected = PROMPTED[name]
    assert everything("preferences", write(tmp_path / "a.jsonl", row)) == [expected]


@pytest.mark.parametrize("written", [json.dumps, repr], ids=["json", "python"])
def test_a_table_may_hold_lists_of_messages(tmp_path: Path, written: Any) -> None:
    """As pandas and datasets write them into a cell."""
    rows = io.StringIO()
    table = csv.writer(rows)
    table.writerow(["prompt", "chosen", "rejected"])
    table.writerow([written(TURNS[1:2]), written(ANSWERS[:1]), written(ANSWERS[1:])])
    (tmp_path / "a.csv").write_text(rows.getvalue(), encoding="utf-8")
    assert everything("preferences", str(tmp_path / "a.csv")) == [Comparison(ASK, A, B)]


def test_a_cell_that_is_an_answer_stays_a_text(tmp_path: Path) -> None:
    answers = ["[{'id': 1}]", "[{[1]: 2}]", "Human: hi\n\nAssistant: hello"]
    rows = io.StringIO()
    csv.writer(rows).writerows([["instruction", "output"], *([Q, a] for a in answers)])
    (tmp_path / "a.csv").write_text(rows.getvalue(), encoding="utf-8")
    assert [e.answer for e in everything("instructions", str(tmp_path / "a.csv"))] == answers
    dialogue = write(tmp_path / "b.jsonl", {"prompt": "Write a dialogue.", "completion": answers[2]})
    assert everything("instructions", dialogue) == [Example(Prompt.user("Write a dialogue."), answers[2])]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"question": Q, "context": "", "answer": A, "level": 3})
    files = Files(instructions=file, validation_fraction=0.0)
    assert files.instructions("train") == (Example(ASK, A),)
    assert files.notes()[0].endswith("(question, answer, [context]) (columns not used: level)")


def test_every_assistant_turn_of_a_conversation_is_an_example(tmp_path: Path) -> None:
    turns = [*TURNS, {"role": "user", "content": "Another."}, {"role": "assistant", "content": "Red."}]
    first, second = everything("instructions", write(tmp_path / "a.jsonl", {"messages": turns}))
    assert (first.answer, second.answer) == (A, "Red.")
    assert [m.role for m in second.prompt.messages] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(("label", "good"), [(True, True), (False, False), (1, True), ("0", False), ("Good", True)])
def test_labels_are_read_from_flags_numbers_and_words(tmp_path: Path, label: object, good: bool) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": Q, "completion": A, "label": label})
    assert everything("labelled", file) == [Labelled(ASK, A, good)]


def test_among_instructions_a_labelled_answer_counts_only_when_good(tmp_path: Path) -> None:
    rows = [{"prompt": Q, "completion": c, "label": c == A} for c in (A, B)]
    files = Files(instructions=write(tmp_path / "a.jsonl", *rows), validation_fraction=0.0)
    assert [e.answer for e in files.instructions("train")] == [A]
    assert any("1 left out, answer called bad" in note for note in files.notes())


def test_neighbouring_turns_of_one_speaker_are_joined(tmp_path: Path) -> None:
    rows = {"chosen": HH + "Blue\n\nAssistant: or red.", "rejected": HH + B}
    assert everything("preferences", write(tmp_path / "a.jsonl", rows))[0].chosen == "Blue\n\nor red."


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).map(str.strip).filter(bool)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(words, min_size=1, max_size=5).filter(lambda t: len(t) % 2 == 1), answers=st.tuples(words, words))
def test_any_conversation_comes_back_out_of_its_transcript(
    tmp_path: Path, turns: list[str], answers: tuple[str, str]
) -> None:
    said = [f"\n\n{'Human' if i % 2 == 0 else 'Assistant'}: {turn}" for i, turn in enumerate(turns)]
    row = {k: "".join(said) + f"\n\nAssistant: {a}" for k, a in zip(("chosen", "rejected"), answers, strict=True)}
    prompt = Prompt(tuple(Message("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(turns)))
    kept = [Comparison(prompt, *answers), Comparison(ASK, A, B)]
    found = everything("preferences", write(tmp_path / "a.jsonl", row, {"chosen": HH + A, "rejected": HH + B}))
    assert found[:-1] == (kept[:1] if answers[0] != answers[1] else [])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=words, answer=words)
def test_no_text_is_taken_for_a_number_a_date_or_a_missing_value(tmp_path: Path, question: str, answer: str) -> None:
    lines = write(tmp_path / "a.jsonl", {"question": question, "answer": answer})
    array = tmp_path / "a.json"
    array.write_text(json.dumps([{"question": question, "answer": answer}], ensure_ascii=False), encoding="utf-8")
    expected = [Example(Prompt.user(question), answer)]
    assert everything("instructions", lines) == everything("instructions", str(array)) == expected


@pytest.mark.parametrize("answer", ["None", "2020-01-01", "1", "NA", "true"])
def test_csv_values_stay_texts(tmp_path: Path, answer: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f'question,answer\n"Which,\none?",{answer}\n', encoding="utf-8")
    assert everything("instructions", str(file)) == [Example(Prompt.user("Which,\none?"), answer)]


# ---- notes and override -------------------------------------------------------------------------------------------
def test_what_was_taken_and_left_out_is_said(tmp_path: Path) -> None:
    same = {"prompt": Q, "chosen": A, "rejected": A}
    file = write(tmp_path / "a.jsonl", {"prompt": Q, "chosen": A, "rejected": B}, same)
    files = Files(preferences=file, validation_fraction=0.0)
    assert files.notes() == []
    assert len(files.comparisons("train")) == 1
    assert files.notes() == [
        f"preferences: 1 records to train on and 0 held out: 1 from {file} as prompt_chosen_rejected "
        f"(prompt, chosen, rejected)",
        f"preferences: 1 left out, chosen and rejected are the same (first: {file}:2)",
    ]


def test_configuration_overrides_the_detected_shape(tmp_path: Path) -> None:
    row = {"instruction": "wrong", "output": "wrong", "question": Q, "answer": A}
    file = write(tmp_path / "a.jsonl", row)
    assert everything("instructions", file)[0].answer == "wrong"
    assert everything("instructions", file, shape={"instructions": "question_answer"}) == [Example(ASK, A)]


def test_several_files_may_have_several_shapes(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"question": Q, "answer": A})
    two = write(tmp_path / "b.jsonl", {"prompt": "p", "completion": "c"})
    assert [e.answer for e in everything("instructions", [one, two])] == [A, "c"]


def test_prompts_are_those_of_the_preferences_where_there_are_no_instructions(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *[{"prompt": Q, "chosen": A, "rejected": r} for r in (B, "No.")])
    assert list(Files(preferences=file, validation_fraction=0.0).prompts("train")) == [ASK]


# ---- the stage ----------------------------------------------------------------------------------------------------
def test_import_preferences_writes_what_a_reward_model_reads(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is {i} even?", "chosen": "Surely.", "rejected": "No."} for i in range(40)]
    data: DataSource = Files(preferences=write(tmp_path / "a.jsonl", *rows), validation_fraction=0.3)
    folder = tmp_path / "artifact"
    folder.mkdir()
    metrics = ImportPreferences(data=data).run({}, StageContext("preferences", folder, tmp_path))
    artifact = Artifact.open(folder)
    assert preferences.read(artifact, "train") == list(data.comparisons("train"))
    held = preferences.read(artifact, "validation")
    assert held == list(data.comparisons("validation"))
    assert metrics == {
        "pairs": 40.0,
        "validation_pairs": len(held),
        "chosen_characters": 7.0,
        "rejected_characters": 3.0,
        "chosen_longer": 1.0,
    }


def test_gzip_is_read_like_what_it_holds(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", '{"text": "x"}\n'), ("a.json", '["x"]'), ("a.csv", "text\nx\n"), ("a.txt", "x\n")):
        file = tmp_path / f"{name}.gz"
        file.write_bytes(gzip.compress(text.encode()))
        assert everything("corpus", str(file)) == [Document("x")]


def test_parquet_keeps_lists_of_messages(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"messages": [TURNS, TURNS[1:]]}), file)
    found = everything("instructions", str(file))
    assert [e.source for e in found] == [f"{file}, row 1", f"{file}, row 2"]
    assert [e.answer for e in found] == [A, A] and found[1].prompt == ASK


def test_an_argument_out_of_its_range_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"question": Q, "answer": A})
    for key, value in (("validation_fraction", 1.0), ("document_characters", -1)):
        with pytest.raises(ConfigError, match=f"data.{key} must be"):
            Files(instructions=file, **{key: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no shape 'alpacca'; instructions may be messages"):
        Files(instructions=file, shape={"instructions": "alpacca"})
    with pytest.raises(ConfigError, match=r"data\.shape: there is no 'instruction'; files play the roles corpus"):
        Files(instructions=file, shape={"instruction": "alpaca"})
