"""`alignlab score`: verdicts on a file of responses, from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignlab.cli.app import main

LINES: list[dict[str, Any]] = [
    {
        "key": 7,
        "prompt": "Say a, quoted.",
        "response": 'Sure.\n"a"',
        "instruction_id_list": ["startend:quotation", "punctuation:no_comma"],
        "kwargs": [{}, {"num_words": None}],
    },
    {
        "prompt": "Zähle bis drei.",
        "response": "eins zwei \ud83d",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"num_words": 3, "relation": "less than"}],
    },
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in LINES), encoding="utf-8")
    return path


def test_each_line_is_written_with_its_verdicts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.with_name("scored.jsonl")
    assert main(["score", str(file), "--out", str(out)]) == 0
    scored = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert scored[0] == {**LINES[0], "strict": [False, True], "loose": [True, True]}
    assert scored[1] == {**LINES[1], "strict": [True], "loose": [True]}
    first, head, prompts, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("alignlab ") and head.split() == ["followed", "of", "strict", "loose"]
    assert prompts.split() == ["prompts", "2", "50%", "(9–91)", "100%", "(34–100)"]


def test_the_accuracies_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(file), "--out", str(file.with_name("scored.jsonl")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"]["strict"]["accuracy"] == 0.5 and found["instruction"]["loose"]["followed"] == 3
    assert list(found["kinds"]) == ["length_constraints:number_words", "startend:quotation", "punctuation:no_comma"]


def test_a_bad_line_is_one_error_and_nothing_is_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**LINES[0], "kwargs": [{}]}) + "\n")
    assert main(["score", str(file), "--out", str(file.with_name("scored.jsonl"))]) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert "responses.jsonl:3: kwargs must be a list of as many objects as there are ids (2)" in message
    assert [f.name for f in file.parent.iterdir()] == ["responses.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required"),
        (["responses.jsonl"], "the following arguments are required: --out; `alignlab score --help` lists the flags"),
        (["nowhere.jsonl", "--out", "a.jsonl"], "no such file: nowhere.jsonl"),
        (["responses.jsonl", "--out", "responses.jsonl"], "--out: responses.jsonl is the file that is scored"),
        (["responses.jsonl", "--out", "."], "--out: . is a folder; name a file"),
        (["responses.jsonl", "--out", "no/a.jsonl"], "make it first"),
    ],
)
def test_mistakes(
    words: list[str], message: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)
    assert main(["score", *words]) == 1
    assert message in capsys.readouterr().err
    assert [f.name for f in file.parent.iterdir()] == ["responses.jsonl"]


def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, long = file.with_name("pipe"), file.with_name("a" * 255)
    os.mkfifo(pipe)
    file.write_text("{", encoding="utf-8")  # an error of its own, were it read
    for out, message in ((pipe, "is not an ordinary file"), (long, "cannot be written")):
        assert main(["score", str(file), "--out", str(out)]) == 1
        assert f"--out: {out}" in (found := capsys.readouterr().err) and message in found
    assert pipe.is_fifo() and sorted(f.name for f in file.parent.iterdir()) == ["pipe", "responses.jsonl"]


def test_it_loads_no_torch(file: Path) -> None:
    words = ["score", str(file), "--out", str(file.with_name("scored.jsonl"))]
    program = (
        "import sys\nfrom alignlab.cli.app import main\n"
        f"assert main({words!r}) == 0\nassert not {{'torch', 'transformers'}} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
