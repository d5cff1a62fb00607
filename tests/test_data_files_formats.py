"""Files in the layouts and under the names in which they are found, and files that are not what their name says."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.data.files import Files, opening
from alignlab.data.records import Document, Example, Prompt
from alignlab.errors import DataError

ROWS = [
    {"instruction": "Name a river.", "output": "The Rhine."},
    {"instruction": "Name a lake.", "output": "Constance."},
]
EXPECTED = [Example(Prompt.user(r["instruction"]), r["output"]) for r in ROWS]


def text(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def loaded(file: str, **more: Any) -> Files:
    return Files(instructions=file, validation_fraction=0.0, **more)


def instructions(file: str, **more: Any) -> list[Example]:
    return list(loaded(file, **more).instructions("train"))


# ---- JSON ------------------------------------------------------------------------------------------------------------
LAYOUTS = {
    "an array": json.dumps(ROWS),
    "an array over lines": json.dumps(ROWS, indent=2),
    "one object per line": "\n".join(map(json.dumps, ROWS)),
    "objects over lines, one after another": "\n".join(json.dumps(r, indent=2) for r in ROWS),
    "an object that holds them": json.dumps({"version": "1.0", "data": ROWS}),
    "an object that holds them, over lines": json.dumps({"data": ROWS, "version": "1.0"}, indent=2),
    "an object by which each has a name": json.dumps({"first": ROWS[0], "second": ROWS[1]}, indent=1),
    "one of several lists": json.dumps({"data": ROWS, "features": [{"name": "instruction"}]}),
    "the key twice": '{"data": [{"a": 1}], "data": ' + json.dumps(ROWS) + "}",
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "json.gz"])
def test_json_is_read_in_every_layout_under_every_name(tmp_path: Path, name: str, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    content = LAYOUTS[name].encode()
    file.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert instructions(str(file)) == EXPECTED


def test_the_lines_of_records_are_those_of_the_file(tmp_path: Path) -> None:
    for number, name in enumerate(("an array over lines", "objects over lines, one after another")):
        found = instructions(text(tmp_path / f"{number}.json", "\n\n" + LAYOUTS[name]))
        assert [int(e.source.rpartition(":")[2]) for e in found] == ([4, 8] if number == 0 else [3, 7])
    held = instructions(text(tmp_path / "c.json", LAYOUTS["an object that holds them, over lines"]))
    assert [int(e.source.rpartition(":")[2]) for e in held] == [3, 7]


def test_one_record_over_several_lines_is_one_record(tmp_path: Path) -> None:
    assert instructions(text(tmp_path / "a.json", json.dumps(ROWS[0], indent=4))) == EXPECTED[:1]
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    assert instructions(text(tmp_path / "b.json", json.dumps(chat, indent=1))) == [Example(Prompt.user("Hi"), "Hello")]


def test_the_key_that_holds_the_records_is_named_and_the_others_too(tmp_path: Path) -> None:
    files = loaded(text(tmp_path / "a.json", LAYOUTS["an object that holds them"]))
    assert len(files.instructions("train")) == 2
    assert files.notes()[0].endswith("(the records are those of its key 'data', keys not used: version)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": ROWS, "test": ROWS}, r"several lists of records \(train, test\); save the one that is meant"),
        ({"instruction": ["a", "b"], "output": ["c", "d"]}, r"by columns \(instruction, output\).*orient='records'"),
        ({"instruction": {"0": "a"}, "output": {"0": "c"}}, r"by columns \(instruction, output\).*orient='records'"),
        ({"data": [{"question": "a", "reply": "b"}]}, r"a\.json:1: the columns \(question, reply\) fit no shape"),
        ({"mesages": [{"role": "user", "content": "Hi"}]}, r"the columns \(mesages\) fit no shape"),
    ],
)
def test_an_object_that_cannot_be_read_says_what_it_is(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        instructions(text(tmp_path / "a.json", json.dumps(content)))


def test_a_broken_line_among_lines_can_be_skipped_wherever_it_is(tmp_path: Path) -> None:
    for number, rows in enumerate(([*map(json.dumps, ROWS), "{"], ["{", *map(json.dumps, ROWS)])):
        file = text(tmp_path / f"{number}.jsonl", "\n".join(rows))
        assert instructions(file, on_bad_record="skip") == EXPECTED
        with pytest.raises(DataError, match=rf"{number}\.jsonl:{3 if number == 0 else 1}: broken JSON"):
            instructions(file)


def test_an_object_over_lines_that_is_broken_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json:3: broken JSON \(Expecting ':' delimiter, column 12\)"):
        instructions(text(tmp_path / "a.json", '{\n  "instruction": "x",\n  "output" "y"\n}'))


def test_nan_in_an_optional_field_is_missing_and_in_another_one_is_said_to_be(tmp_path: Path) -> None:
    rows = '[{"instruction": "Name a river.", "input": NaN, "system": NaN, "output": "The Rhine."}]'
    assert instructions(text(tmp_path / "a.json", rows)) == EXPECTED[:1]
    with pytest.raises(DataError, match=r"field 'output' is NaN, so missing \(the record has instruction\)"):
        instructions(text(tmp_path / "b.jsonl", '{"instruction": "a", "output": NaN}\n' + json.dumps(ROWS[0])))


def test_nan_in_a_parquet_file_is_missing(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    columns = {k: [r[k] for r in ROWS] for k in ROWS[0]} | {"input": [None, "x"], "system": [float("nan")] * 2}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert [e.prompt.text for e in instructions(str(tmp_path / "a.parquet"))] == ["Name a river.", "Name a lake.\n\nx"]


# ---- tables ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_csv_is_parted_by_what_its_header_is_parted_by(tmp_path: Path, delimiter: str, word: str) -> None:
    content = f'question{delimiter}answer\nName a lake.{delimiter}Constance, Lake\n"a{delimiter}b"{delimiter}"c"\n'
    files = loaded(text(tmp_path / "a.csv", content))
    assert [e.answer for e in files.instructions("train")] == ["Constance, Lake", "c"]
    assert files.instructions("train")[1].prompt.text == f"a{delimiter}b"
    assert f"(split at {word})" in files.notes()[0]


def test_a_comma_wins_where_it_makes_the_columns(tmp_path: Path) -> None:
    content = "question,answer,a;b;c\nx;y,z,1\n"
    assert instructions(text(tmp_path / "a.csv", content)) == [Example(Prompt.user("x;y"), "z")]
    corpus = Files(corpus=text(tmp_path / "b.csv", "text\na;b\n"), validation_fraction=0.0)
    assert corpus.documents("train") == (Document("a;b"),)


def test_the_delimiter_that_excel_names_is_used_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    found = instructions(text(tmp_path / "a.csv", "sep=;\nquestion;answer\nx;y, z\n"))
    assert [(e.answer, e.source.rpartition(":")[2]) for e in found] == [("y, z", "3")]


def test_tsv_knows_no_quotes(tmp_path: Path) -> None:
    rows = [("What opens a quote?", '"It opens here'), ("What closes it?", 'here it ends"'), ("A third?", '"hello"')]
    file = text(tmp_path / "a.tsv", "question\tanswer\n" + "".join(f"{q}\t{a}\n" for q, a in rows))
    assert instructions(file) == [Example(Prompt.user(q), a) for q, a in rows]


def test_tsv_that_was_quoted_as_csv_is_reported_and_read_with_quotes_under_the_other_name(tmp_path: Path) -> None:
    content = 'question\tanswer\nSay it.\t"He said ""yes"""\n'
    files = loaded(text(tmp_path / "a.tsv", content))
    assert files.instructions("train")[0].answer == '"He said ""yes"""'
    assert "1 of 1 rows have cells that look quoted as in CSV" in files.notes()[0]
    assert instructions(text(tmp_path / "a.csv", content))[0].answer == 'He said "yes"'


def test_a_tsv_row_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tsv:3: 3 fields where the header has 2 \(question, answer\)"):
        instructions(text(tmp_path / "a.tsv", "question\tanswer\na\tb\nx\ty\tz\n"))


# ---- not what the name says ------------------------------------------------------------------------------------------
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
STRANGERS = {
    "a Git LFS pointer": (POINTER, "a Git LFS pointer instead of the data; fetch it with git lfs pull"),
    "a git-annex pointer": (b"/annex/objects/SHA256E-s1--a", "git annex get"),
    "a zip archive": (b"PK\x03\x04rest", "a zip archive or an Excel file"),
    "gzip": (gzip.compress(b"{}"), "compressed with gzip; add .gz to its name"),
    "UTF-16": ("question,answer".encode("utf-16"), "UTF-16, as PowerShell and Excel write it; save it as UTF-8"),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "tsv", "txt", "parquet"])
def test_a_file_that_is_something_else_says_what_it_is(tmp_path: Path, name: str, suffix: str) -> None:
    content, message = STRANGERS[name]
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{suffix} is {message}" if "annex" not in message else message):
        Files(corpus=str(tmp_path / f"a.{suffix}"), validation_fraction=0.0).documents("train")


def test_a_pointer_within_gzip_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(POINTER))
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        instructions(str(tmp_path / "a.jsonl.gz"))


def test_a_web_page_is_no_table_but_may_be_a_text(tmp_path: Path) -> None:
    page = "\n<!DOCTYPE html>\n<html><body>404</body></html>"
    with pytest.raises(DataError, match=r"a\.jsonl is a web page; download the file itself"):
        instructions(text(tmp_path / "a.jsonl", page))
    assert len(Files(corpus=text(tmp_path / "a.txt", page), validation_fraction=0.0).documents("train")) == 1


def test_parquet_under_another_name_and_another_thing_named_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PAR1....PAR1")
    with pytest.raises(DataError, match=r"a\.csv is a parquet file; name it \.parquet"):
        instructions(str(tmp_path / "a.csv"))
    with pytest.raises(DataError, match=r"b\.parquet is not a parquet file"):
        instructions(text(tmp_path / "b.parquet", "question,answer\n"))


def test_parquet_without_rows_says_so_and_names_its_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the file has no rows \(columns: text\)"):
        Files(corpus=str(tmp_path / "a.parquet")).documents("train")


def test_a_line_beyond_any_text_is_refused_before_memory_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LONGEST_LINE", 1000)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(DataError, match=r"a\.txt\.gz has a line of more than 1000 characters"):
        Files(corpus=str(tmp_path / "a.txt.gz"), validation_fraction=0.0).documents("train")
    assert (
        len(Files(corpus=text(tmp_path / "b.txt", "x" * 999 + "\ny\n"), validation_fraction=0.0).documents("train"))
        == 1
    )


NAMES = [
    "data (1)",
    "a=b",
    "café 数据",
    "a::b",
    "a#b",
    "50%",
    "w?x*",
    "[x] {y}",
    "a,b",
    'it\'s "so"',
    " lead",
    "~t",
    "a$b!",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt.gz", "parquet"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str, suffix: str) -> None:
    file = tmp_path / f"{name}.{suffix}"
    if suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.table({"text": ["x"]}), file)
    else:
        content = {"jsonl": b'{"text": "x"}', "csv": b"text\nx\n", "txt.gz": gzip.compress(b"x\n")}[suffix]
        file.write_bytes(content)
    (document,) = Files(corpus=str(file), validation_fraction=0.0).documents("train")
    assert document.text == "x" and document.source.startswith(str(file))
