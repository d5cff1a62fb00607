"""`alignlab chat`: how a line is spelt, the commands, and what is said about what a model cannot read."""

import io
from pathlib import Path

import pytest

from alignlab.cli.app import main
from alignlab.cli.talk import spelt, unknown_words
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.testing import tiny_policy_artifact

WORDS = TrainTokenizer("word", 50).train(["where does ana live ?", "certainly ! ana lives in Rome ."])
BYTES = TrainTokenizer("bpe", 300).train(["where does ana live ?"])


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("where does ana live ?", "where does ana live ?"),
        ("Where does Ana live?", "where does ana live ?"),
        ("ana lives in Rome.", "ana lives in Rome ."),
        ("Where does Zoe live?", "where does Zoe live ?"),
        ("Certainly! Ana... lives", "certainly ! ana . . . lives"),
    ],
)
def test_capital_letters_and_punctuation_are_read_by_a_tokenizer_of_words(typed: str, read: str) -> None:
    assert spelt(WORDS, typed) == read


def test_a_tokenizer_that_can_write_any_text_gets_it_as_typed() -> None:
    assert spelt(BYTES, "Where does Ana live?") == "Where does Ana live?"


def test_unknown_words_are_named() -> None:
    assert unknown_words(WORDS, "where does zoe live ?") == ["zoe"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    artifact = tiny_policy_artifact(tmp_path / "policy")
    (artifact.path / "samples.jsonl").write_text('{"kind": "question", "prompt": "what does ana like ?"}\n')
    return artifact.path


def talked(
    folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["chat", str(folder), "--no-plain", "--max-new-tokens", "3"]) == 0
    heard = capsys.readouterr()
    return heard.out, heard.err


def test_commands_are_not_put_to_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "/help\n/examples\n/temperature 0\n/temperature cold\n/history on\n/new\n/hlep\n/quit\nunheard\n"
    out, err = talked(folder, lines, monkeypatch, capsys)
    assert not out
    assert "/temperature X   how freely the model answers" in err
    assert "you could ask: what does ana like ?" in err
    assert "temperature 0\n" in err
    assert "/temperature takes a number from 0 up, such as /temperature 0.7; got cold" in err
    assert "it sees the turns before" in err
    assert "unknown command /hlep; did you mean /help?\n" in err


def test_a_line_is_answered_and_what_was_changed_or_is_unknown_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = talked(folder, "What does Ana like?\nwhat does zoe like ?\n", monkeypatch, capsys)
    assert len(out.splitlines()) == 2
    assert "read as: what does ana like ?" in err
    assert "this model has no token for: zoe" in err


def test_a_flag_that_cannot_be_read_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "run", "--temperature", "warm"]) == 1
    error = capsys.readouterr().err
    assert "argument --temperature: invalid float value: 'warm'; `alignlab chat --help` lists the flags" in error
