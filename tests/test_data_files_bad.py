"""Bad input: each mistake gets one message that names file, line and field, and says what to do."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.data.files import Files
from alignlab.errors import DataError

GOOD = {"instruction": "Name a colour.", "output": "Blue."}
PAIR = {"prompt": "Name a colour.", "chosen": "Blue.", "rejected": "No."}


LATER = [{"role": "user", "content": "And another?"}, {"role": "assistant", "content": "Red."}]


def lines(path: Path, *rows: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def files(role: str, file: str, skip: bool = False) -> Files:
    return Files(**{role: file}, validation_fraction=0.0, on_bad_record="skip" if skip else "stop")


def read(files: Files) -> list[Any]:
    if files.files["preferences"]:
        return list(files.comparisons("train"))
    return list(files.documents("train") if files.files["corpus"] else files.instructions("train"))


BAD_INSTRUCTIONS = {
    "a missing field": ({"instruction": "x"}, r"field 'output' is missing \(the record has instruction\)"),
    "null": ({"instruction": "x", "output": None}, r"field 'output' is null \(the record has instruction\)"),
    "a number": ({"instruction": "x", "output": 7}, "field 'output' must be text, found a number: 7"),
    "a list": ({"instruction": ["x"], "output": "y"}, r"field 'instruction' must be text, found a list: \['x'\]"),
    "an optional field of the wrong type": (
        {"instruction": "x", "input": {"a": 1}, "output": "y"},
        "field 'input' must be text, found an object",
    ),
    "broken JSON": ('{"instruction": "x", "output": ', r"broken JSON .*column \d+.*each line must be one object"),
    "no object": ("[1, 2]", "a record must be a JSON object, found list"),
}


def test_a_column_may_have_a_name_of_any_length(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.csv", f"instruction,output,{'x' * 200_000}", "a,b,c")
    assert [e.answer for e in read(files("instructions", file))] == ["b"]


@pytest.mark.parametrize("name", BAD_INSTRUCTIONS)
def test_a_bad_record_stops_with_file_line_and_field(tmp_path: Path, name: str) -> None:
    row, message = BAD_INSTRUCTIONS[name]
    file = lines(tmp_path / "a.jsonl", GOOD, "", row, GOOD)
    with pytest.raises(DataError, match=rf"a\.jsonl:3: {message}.*data\.on_bad_record=skip"):
        read(files("instructions", file))


@pytest.mark.parametrize("name", BAD_INSTRUCTIONS)
def test_a_bad_record_can_be_skipped_counted_and_reported(tmp_path: Path, name: str) -> None:
    source = files("instructions", lines(tmp_path / "a.jsonl", GOOD, "", BAD_INSTRUCTIONS[name][0], GOOD), skip=True)
    assert [e.answer for e in read(source)] == ["Blue.", "Blue."]
    assert any("1 bad records skipped: " in note and "a.jsonl:3: " in note for note in source.notes())


def message(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ("hello", "must be a list of messages, each with role and content, found text: 'hello'"),
        ([], "the list of messages is empty"),
        (["hello"], "message 1 must be an object with role and content, found str"),
        ([message("human", "x")], "message 1 has role 'human'; it must be one of system, user, assistant"),
        ([message("user", 3)], "message 1 needs a text in content, found int"),
        ([message("user", "x")], "no message is the assistant's"),
        ([message("assistant", "x")], "the message before an answer must be the user's or a tool's; it is not there"),
        ([message("user", "x"), message("assistant", "y"), message("assistant", "z")], ".*it is the assistant's"),
    ],
)
def test_a_bad_conversation_says_what_is_wrong(tmp_path: Path, messages: object, complaint: str) -> None:
    file = lines(tmp_path / "a.jsonl", {"messages": messages})
    with pytest.raises(DataError, match=rf"a\.jsonl:1: field 'messages':? {complaint}"):
        read(files("instructions", file))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"chosen": "Hello", "rejected": "x"}, "field 'chosen': a transcript must begin with \"Human:\""),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"},
            "chosen and rejected differ before their last answers",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "rejected": "\n\nHuman: a\n\nAssistant: b"},
            "it must end with the assistant's answer",
        ),
        ({"chosen": 3, "rejected": "x"}, "field 'chosen' must be text, found a number: 3"),
        ({**PAIR, "chosen": [message("user", "x")]}, "field 'chosen': it must end with the assistant's answer"),
        (
            {**PAIR, "chosen": [message("user", "other"), message("assistant", "x")]},
            "field 'chosen': its conversation does not begin with the record's prompt",
        ),
        (
            {**PAIR, "chosen": [message("user", PAIR["prompt"]), message("assistant", "a"), *LATER]},
            "chosen and rejected differ before their last answers",
        ),
        ({**PAIR, "prompt": [message("assistant", "x")]}, "field 'prompt': the message before an answer must be"),
    ],
)
def test_a_bad_comparison_says_what_is_wrong(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{complaint}"):
        read(files("preferences", lines(tmp_path / "a.jsonl", row)))


def test_a_label_that_is_none_is_refused(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c", "label": "safe"})
    with pytest.raises(DataError, match=r"field 'label' must be true or false .*, found text: 'safe'"):
        Files(labelled=file).labelled("train")


def test_instances_that_are_no_objects_are_refused(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"instruction": "p", "instances": ["c"]})
    with pytest.raises(DataError, match=r"a\.jsonl:1: field 'instances' must be a list of objects"):
        read(files("instructions", file))


def test_a_broken_array_names_its_line_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n{"text": "x"},\n{"text" "y"}\n]')
    with pytest.raises(DataError, match=r"a\.json:3: broken JSON .*column 9.*save one object per line as \.jsonl"):
        read(files("corpus", str(tmp_path / "a.json"), skip=True))


def test_a_bad_element_of_an_array_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n  {"text": "x\\ny"},\n\n  {"text": 3}, 5]')
    with pytest.raises(DataError, match=r"a\.json:4, record 2: field 'text' must be text, found a number: 3"):
        read(files("corpus", str(tmp_path / "a.json")))
    source = files("corpus", str(tmp_path / "a.json"), skip=True)
    assert [d.text for d in read(source)] == ["x\ny"]
    assert any("2 bad records skipped" in note for note in source.notes())


def test_a_csv_row_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\n"two\nlines",1\nx,2,3\n')
    with pytest.raises(DataError, match=r"a\.csv:4: 3 fields where the header has 2 \(question, answer\)"):
        read(files("instructions", str(tmp_path / "a.csv")))
    assert len(read(files("instructions", str(tmp_path / "a.csv"), skip=True))) == 1


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\nfine\n"open\nmore\nand more\n')
    with pytest.raises(DataError, match=r"a\.csv:3: broken CSV .*quote"):
        read(files("corpus", str(tmp_path / "a.csv")))


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,text\na,b\n")
    with pytest.raises(DataError, match=r"a\.csv:1: a column is named twice in the header: text, text"):
        read(files("corpus", str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.json", "[]"), ("a.csv", "text\n")]
)
def test_an_empty_file_says_so(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: the file is empty"):
        read(files("corpus", str(tmp_path / name)))


def test_nothing_left_after_skipping_is_an_error(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": 1}, {"text": ""})
    with pytest.raises(DataError, match=r"no usable record for corpus: .*a\.jsonl:2: empty text; .*:1: field 'text'"):
        read(files("corpus", file, skip=True))
    with pytest.raises(DataError, match=r"b\.jsonl:2: broken JSON"):
        read(files("corpus", lines(tmp_path / "b.jsonl", "{", "{"), skip=True))


def test_a_file_that_is_not_there_is_missed_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*nothing\.txt \(looked in "):
        Files(corpus=str(tmp_path / "nothing.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match=r"folder\.txt is a folder; name a file in it"):
        Files(corpus=str(tmp_path / "folder.txt"))


@pytest.mark.parametrize("name", ["a.docx", "a", "a.parquet.gz", "a.gz"])
def test_an_unknown_extension_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"unknown extension .*\.jsonl, .*\.parquet"):
        Files(corpus=str(tmp_path / name))


def test_plain_text_cannot_be_instructions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"data\.instructions: .*a\.txt is plain text, which only data\.corpus and data\.prompts take"
    ):
        Files(instructions=str(tmp_path / "a.txt"))


def test_unknown_columns_list_what_is_accepted_and_what_is_nearest(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"instruction": "x", "outptu": "y"})
    with pytest.raises(DataError) as caught:
        read(files("instructions", file))
    for part in (
        "a.jsonl:1: the columns (instruction, outptu)",
        "nearest: alpaca, which lacks output",
        "question_answer (question, answer, [context])",
    ):
        assert part in str(caught.value)


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\ncaf\xe9\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"fine\ncaf\xe9\n"))
    for name in ("a.txt", "a.txt.gz"):
        with pytest.raises(DataError, match=rf"{name}:2: not UTF-8 .*convert the file to UTF-8"):
            read(files("corpus", str(tmp_path / name)))


def test_a_damaged_archive_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:40])
    (tmp_path / "b.jsonl.gz").write_bytes(b"not gzip at all")
    (tmp_path / "c.parquet").write_bytes(b"not parquet at all")
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.parquet"):
        with pytest.raises(DataError, match=name):
            read(files("corpus", str(tmp_path / name)))


def test_a_role_without_a_file_says_which_key_would_bring_it(tmp_path: Path) -> None:
    source = files("corpus", lines(tmp_path / "a.jsonl", {"text": "x"}))
    for ask, key in ((source.instructions, "instructions"), (source.comparisons, "preferences")):
        with pytest.raises(DataError, match=f"set data.{key} to a file"):
            ask("train")
    with pytest.raises(DataError, match=r"set data\.labelled to a file"):
        source.labelled("train")
