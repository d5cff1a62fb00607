"""Lists that were written into cells of a table are read as lists or refused; an answer that is JSON stays a text."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.data.files import Files
from alignlab.data.files.cells import messages_in
from alignlab.data.records import Comparison, Example, Message, Prompt
from alignlab.errors import DataError

Q, A, B = "Name a colour.", "Blue.", "Whatever."
ASK = Prompt.user(Q)
USER, GOOD, BAD = ({"role": r, "content": c} for r, c in (("user", Q), ("assistant", A), ("assistant", B)))


def of_numpy(messages: list[dict[str, Any]]) -> str:
    """As `DataFrame.to_csv` writes a list that came out of a parquet file: no commas between the objects."""
    return "[" + "\n ".join(map(repr, messages)) + "]"


WRITTEN: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "json": json.dumps,
    "indented": lambda m: json.dumps(m, indent=1),
    "after a blank": lambda m: " " + json.dumps(m),
    "after a line break": lambda m: "\n" + json.dumps(m) + "\n",
    "after a byte order mark": lambda m: "\ufeff" + json.dumps(m),
    "python": repr,
    "a tuple": lambda m: repr(tuple(m)),
    "numpy": of_numpy,
    "numpy's repr": lambda m: f"array({of_numpy(m)}, dtype=object)",
    "json in json": lambda m: json.dumps(json.dumps(m)),
}


def table(path: Path, header: list[str], *rows: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    path.write_text(out.getvalue(), encoding="utf-8")
    return str(path)


def lines(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def instructions(file: str, **more: Any) -> list[Example]:
    return list(Files(instructions=file, validation_fraction=0.0, **more).instructions("train"))


@pytest.mark.parametrize("form", WRITTEN)
def test_messages_in_a_cell_are_read_however_they_were_written(tmp_path: Path, form: str) -> None:
    write = WRITTEN[form]
    row = [write([USER]), write([GOOD]), write([BAD])]
    pairs = Files(preferences=table(tmp_path / "a.csv", ["prompt", "chosen", "rejected"], row), validation_fraction=0.0)
    assert pairs.comparisons("train") == (Comparison(ASK, A, B),)
    whole = [USER, GOOD, {"role": "user", "content": "And another?"}, BAD]
    found = instructions(table(tmp_path / "b.csv", ["messages"], [write(whole)]))
    assert [e.answer for e in found] == [A, B]
    assert found[1].prompt.messages == tuple(Message(m["role"], m["content"]) for m in whole[:3])


@pytest.mark.parametrize("form", ["json", "indented", "python"])
def test_a_single_message_is_a_list_of_one(tmp_path: Path, form: str) -> None:
    def write(message: dict[str, str]) -> str:
        return (
            json.dumps(message, indent=2)
            if form == "indented"
            else json.dumps(message)
            if form == "json"
            else repr(message)
        )

    assert instructions(table(tmp_path / "a.csv", ["prompt", "completion"], [write(USER), write(GOOD)])) == [
        Example(ASK, A)
    ]
    assert instructions(lines(tmp_path / "a.jsonl", {"prompt": USER, "completion": GOOD})) == [Example(ASK, A)]


def test_what_was_read_out_of_a_text_is_reported(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", ["prompt", "completion"], [json.dumps([USER]), A], [json.dumps([USER]), B])
    files = Files(instructions=file, validation_fraction=0.0)
    assert len(files.instructions("train")) == 2
    assert files.notes()[1] == (
        f"instructions: field 'prompt' is a text that holds a list of messages; read as that list: 2 times "
        f"(first: {file}:2)"
    )


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3), st.sampled_from(sorted(WRITTEN)))
def test_any_messages_come_back_out_of_a_cell(contents: list[str], form: str) -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    assert messages_in(WRITTEN[form](messages), strict=True) == messages


BROKEN = {
    "cut off": '[{"role": "user", "content": "Name',
    "numpy's shortened": "[{'role': 'user', 'content': 'x'} ...\n {'role': 'assistant', 'content': 'y'}]",
    "java": "[{role=user, content=Name a colour.}]",
    "html": "[{&quot;role&quot;: &quot;user&quot;, &quot;content&quot;: &quot;x&quot;}]",
    "a list in a list": json.dumps([[USER]]),
    "an object around it": json.dumps({"messages": [USER]}),
    "sharegpt": json.dumps([{"from": "human", "value": Q}]),
    "an unknown role": json.dumps([{"role": "teacher", "content": Q}]),
    "content in parts": json.dumps([{"role": "user", "content": [{"type": "text", "text": Q}]}]),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("columns", [("prompt", "completion"), ("question", "answer"), ("instruction", "output")])
def test_a_cell_that_only_resembles_messages_is_a_bad_record(
    tmp_path: Path, name: str, columns: tuple[str, str]
) -> None:
    for row in ([BROKEN[name], A], [Q, BROKEN[name]]):
        file = table(tmp_path / "a.csv", list(columns), row, [Q, A])
        with pytest.raises(DataError, match=r"a\.csv:2: .*data\.on_bad_record=skip"):
            instructions(file)
        assert instructions(file, on_bad_record="skip") == [Example(ASK, A)]


def test_messages_in_a_column_of_texts_are_refused_with_the_columns_for_them(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", ["question", "answer"], [json.dumps([USER]), A])
    with pytest.raises(DataError, match=r"field 'question' holds a list of messages .*name the columns prompt and"):
        instructions(file)


ANSWERS = [
    json.dumps([{"name": "Ann", "age": 3}, {"name": "Bo", "age": 4}]),
    json.dumps([{"name": "Ann", "role": "admin"}], indent=2),
    json.dumps({"name": "Ann"}),
    json.dumps([{"from": "A", "to": "B", "value": 3}]),
    "[1, 2, 3]",
    "[]",
    "{}",
    "[{'id': 1}]",
    "[{[1]: 2}]",
    "{ broken",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_json_is_a_text(tmp_path: Path, answer: str) -> None:
    expected = [Example(ASK, answer)]
    assert instructions(lines(tmp_path / "a.jsonl", {"prompt": Q, "completion": answer})) == expected
    assert instructions(lines(tmp_path / "b.jsonl", {"instruction": Q, "output": answer})) == expected
    assert instructions(table(tmp_path / "a.csv", ["prompt", "completion"], [Q, answer])) == expected
    pair = lines(tmp_path / "c.jsonl", {"prompt": Q, "chosen": answer, "rejected": "none"})
    assert Files(preferences=pair, validation_fraction=0.0).comparisons("train") == (Comparison(ASK, answer, "none"),)


def test_an_answer_that_is_a_chat_as_json_is_a_text_where_types_are_known(tmp_path: Path) -> None:
    """In JSON lines, messages that do not go with the prompt are what was asked for."""
    chat = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    ask = "Write a chat as JSON."
    file = lines(tmp_path / "a.jsonl", {"prompt": ask, "completion": chat})
    assert instructions(file) == [Example(Prompt.user(ask), chat)]


def test_messages_that_were_encoded_twice_are_read(tmp_path: Path) -> None:
    row = {"prompt": json.dumps([USER]), "completion": json.dumps([USER, GOOD])}
    assert instructions(lines(tmp_path / "a.jsonl", row)) == [Example(ASK, A)]
    assert instructions(lines(tmp_path / "b.jsonl", {"messages": json.dumps([USER, GOOD])})) == [Example(ASK, A)]


# ---- keys of messages ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("off", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_turns_that_are_not_to_be_learnt_from_are_context_only(tmp_path: Path, off: dict[str, object]) -> None:
    turns = [USER, {**GOOD, **off}, {"role": "user", "content": "Another."}, {**BAD, "weight": 1}]
    files = Files(instructions=lines(tmp_path / "a.jsonl", {"messages": turns}), validation_fraction=0.0)
    (only,) = files.instructions("train")
    assert only.answer == B and only.prompt.messages[1].content == A
    assert any("answers not learnt from, as their weight is 0" in note for note in files.notes())


def test_a_record_without_an_answer_to_learn_from_is_counted(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": [USER, {**GOOD, "weight": 0}]}, {"messages": [USER, GOOD]})
    files = Files(instructions=file, validation_fraction=0.0)
    assert len(files.instructions("train")) == 1
    assert any("1 left out, no answer is learnt from (weight 0, or train false)" in note for note in files.notes())


def test_a_weight_that_is_neither_0_nor_1_is_refused(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": [USER, {**GOOD, "weight": 0.5}]})
    with pytest.raises(DataError, match=r"message 2 has weight 0\.5; it must be 0 or 1"):
        instructions(file)


def test_keys_of_messages_that_are_not_read_are_named(tmp_path: Path) -> None:
    turns = [USER, {**GOOD, "tool_calls": [{"id": 1}], "reasoning_content": "Hm.", "name": None, "function_call": {}}]
    file = lines(tmp_path / "a.jsonl", {"messages": turns})
    files = Files(instructions=file, validation_fraction=0.0)
    assert len(files.instructions("train")) == 1
    assert files.notes()[1] == (
        f"instructions: keys of messages not used: tool_calls, reasoning_content: 1 times (first: {file}:1)"
    )
    pair = lines(tmp_path / "b.jsonl", {"prompt": Q, "chosen": [{**GOOD, "weight": 0}], "rejected": [BAD]})
    pairs = Files(preferences=pair, validation_fraction=0.0)
    assert len(pairs.comparisons("train")) == 1
    assert "keys of messages not used: weight" in pairs.notes()[1]


def test_a_system_column_is_read_with_every_shape_that_has_a_prompt(tmp_path: Path) -> None:
    expected = Prompt.user(Q, "Be short.")
    rows: list[dict[str, Any]] = [
        {"messages": [USER, GOOD]},
        {"instruction": Q, "output": A},
        {"prompt": Q, "completion": A},
        {"question": Q, "answer": A},
        {"instruction": Q, "instances": [{"input": "", "output": A}]},
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {B}"},
    ]
    for number, row in enumerate(rows):
        file = lines(tmp_path / f"{number}.jsonl", {**row, "system": "Be short."})
        assert [e.prompt for e in instructions(file)] == [expected], row
    own = {"messages": [{"role": "system", "content": "Be long."}, USER, GOOD], "system": "Be short."}
    with pytest.raises(DataError, match=r"own\.jsonl:1: the column system and the conversation hold different system"):
        instructions(lines(tmp_path / "own.jsonl", own))
    asked = {
        "prompt": [own["messages"][0], USER],
        "completion": [{"role": "system", "content": "Be kind."}, USER, GOOD],
    }
    with pytest.raises(DataError, match="another system message than the record's prompt"):
        instructions(lines(tmp_path / "asked.jsonl", asked))
