"""Files: which split a record belongs to, the digest of the contents, and plain text cut into documents."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.config.check import parse
from alignlab.data.conversations import prompt_key, text_key
from alignlab.data.files import Files
from alignlab.data.records import Document
from alignlab.data.source import Split
from alignlab.errors import DataError


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def corpus(path: Path, text: str, **more: Any) -> list[Document]:
    path.write_text(text, encoding="utf-8")
    return list(Files(corpus=str(path), validation_fraction=0.0, **more).documents("train"))


def numbered(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(count)]


def test_the_split_is_about_the_asked_fraction_and_covers_everything(tmp_path: Path) -> None:
    files = Files(instructions=write(tmp_path / "a.jsonl", *numbered(1000)), validation_fraction=0.2)
    train, held = files.instructions("train"), files.instructions("validation")
    assert len(train) + len(held) == 1000
    # Five standard deviations of a binomial(1000, 0.2).
    assert abs(len(held) - 200) < 5 * (1000 * 0.2 * 0.8) ** 0.5


def test_more_rows_in_another_order_move_no_row_to_the_other_split(tmp_path: Path) -> None:
    few = Files(instructions=write(tmp_path / "a.jsonl", *numbered(60)))
    more = Files(instructions=write(tmp_path / "b.jsonl", *reversed(numbered(90))))
    assert few.instructions("validation")
    assert set(few.instructions("validation")) <= set(more.instructions("validation"))
    assert set(few.instructions("train")) <= set(more.instructions("train"))


def test_a_held_out_prompt_is_held_out_as_instruction_and_as_preference(tmp_path: Path) -> None:
    rows = [{"prompt": r["question"], "chosen": r["answer"], "rejected": "no"} for r in numbered(80)]
    file = write(tmp_path / "a.jsonl", *rows)
    files = Files(instructions=file, preferences=file)
    assert {c.prompt for c in files.comparisons("validation")} == {e.prompt for e in files.instructions("validation")}


def test_another_split_seed_holds_out_others(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *numbered(200))
    one, two = (Files(instructions=file, split_seed=s).instructions("validation") for s in (0, 1))
    assert set(one) != set(two)


# ---- what is one prompt ----------------------------------------------------------------------------------------------
SAME = {
    "blanks at the ends": "  {}\t",
    "a line break at the end": "{}\n",
    "runs of blanks": "{}",
    "no-break blanks": "{}",
    "an invisible character": "\ufeff{}\u200b",
}


def written(question: str, how: str) -> str:
    text = SAME.get(how, "{}").format(question)
    if how == "runs of blanks":
        return text.replace(" ", " \n  ")
    if how == "no-break blanks":
        return text.replace(" ", "\u00a0")
    if how in ("NFC", "NFD", "NFKC"):
        return unicodedata.normalize(how, text)  # type: ignore[arg-type]
    return text.upper() if how == "letter case" else text


@pytest.mark.parametrize("how", [*SAME, "NFC", "NFD", "NFKC", "letter case"])
def test_no_question_is_held_out_that_is_trained_on_in_another_writing(tmp_path: Path, how: str) -> None:
    questions = [f"Où est le café №{i} à {i} °C ?" for i in range(200)]
    rows = [{"question": q, "answer": "Là."} for q in questions]
    other = [{"question": written(q, how), "answer": "Là."} for q in questions]
    assert how in ("NFC",) or sum(a != b for a, b in zip(rows, other, strict=True)) == 200
    files = Files(instructions=write(tmp_path / "a.jsonl", *rows, *other), validation_fraction=0.3)
    number = re.compile(r"\d+")

    def asked(split: Split) -> list[str]:
        return sorted(number.findall(e.prompt.text)[0] for e in files.instructions(split))

    train, held = asked("train"), asked("validation")
    assert not set(train) & set(held) and held
    assert len(train) == 2 * len(set(train)) and len(held) == 2 * len(set(held))


def test_a_system_message_and_the_shape_of_a_record_do_not_tell_prompts_apart(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(100):
        user = {"role": "user", "content": f"What is {i}?"}
        answer = {"role": "assistant", "content": "A number."}
        rows += [
            {"messages": [user, answer]},
            {"messages": [{"role": "system", "content": f"You are {i % 3}."}, user, answer]},
            {"messages": [user, answer, {"role": "user", "content": "And then?"}, answer]},
        ]
    alpaca = [{"instruction": f"What is {i}?", "system": "Be kind.", "output": "A number."} for i in range(100)]
    pairs = [{"prompt": f"what is {i}? ", "chosen": "A number.", "rejected": "No."} for i in range(100)]
    one = write(tmp_path / "a.jsonl", *rows)
    two = write(tmp_path / "b.jsonl", *alpaca)
    files = Files(instructions=[one, two], preferences=write(tmp_path / "c.jsonl", *pairs), validation_fraction=0.3)
    learnt, held = ({prompt_key(e.prompt) for e in files.instructions(s)} for s in ("train", "validation"))
    assert not learnt & held and len(held) > 10
    assert {prompt_key(c.prompt) for c in files.comparisons("validation")} == held


def test_a_document_that_is_there_twice_but_for_blanks_is_in_one_part(tmp_path: Path) -> None:
    rows = [{"text": f"Text number {i}."} for i in range(100)]
    files = Files(corpus=write(tmp_path / "a.jsonl", *rows, *({"text": r["text"] + " \n"} for r in rows)))
    train, held = ({d.text.strip() for d in files.documents(s)} for s in ("train", "validation"))
    assert not train & held and len(train) + len(held) == 100


def test_many_records_with_one_question_say_why_they_cannot_be_split(tmp_path: Path) -> None:
    rows = [{"question": "Summarise.", "system": f"Text {i}.", "answer": "So."} for i in range(5)]
    with pytest.raises(DataError, match=r"only one prompt for instructions in 5 records \(system messages and later"):
        Files(instructions=write(tmp_path / "a.jsonl", *rows)).instructions("train")


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text())
def test_the_key_of_a_text_is_its_own_key_and_blanks_do_not_change_it(text: str, other: str) -> None:
    key = text_key(text)
    assert text_key(key) == key
    assert text_key(f" {text}\n") == key
    assert text_key(f"{text} {other}") == text_key(f"{text}\n\n{other}")


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_split_is_ever_empty(tmp_path: Path, fraction: float) -> None:
    files = Files(instructions=write(tmp_path / "a.jsonl", *numbered(3)), validation_fraction=fraction)
    assert sorted((len(files.instructions("train")), len(files.instructions("validation")))) == [1, 2]


def test_one_prompt_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only one prompt for instructions.*validation_fraction=0"):
        Files(instructions=write(tmp_path / "a.jsonl", *numbered(1))).instructions("train")


def test_the_digest_is_of_contents_not_of_names(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, *numbered(3)) for name in ("a.jsonl", "b.jsonl"))
    c = write(tmp_path / "c.jsonl", *numbered(4))
    digests = [Files(instructions=name).content_digest() for name in (a, b, c)]
    assert digests[0] == digests[1] != digests[2]
    assert Files(preferences=a).content_digest() != digests[0]


# ---- plain text ---------------------------------------------------------------------------------------------------
TEXT = "\n".join(f"Speaker {i}:\nThis is line {i}.\n" for i in range(20))


def test_plain_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    found = corpus(file, TEXT, document_characters=60)
    assert all(d.text.startswith("Speaker") and 60 <= len(d.text) < 120 for d in found[:-1])
    assert "\n\n".join(d.text for d in found) == TEXT.rstrip("\n")
    assert [d.source for d in found[:2]] == [f"{file}:1", f"{file}:{found[0].text.count(chr(10)) + 3}"]


@pytest.mark.parametrize(("characters", "count"), [(0, 20), (None, 1)])
def test_paragraphs_or_the_whole_file_can_be_documents(tmp_path: Path, characters: int | None, count: int) -> None:
    file = tmp_path / "a.txt"
    assert len(corpus(file, TEXT, document_characters=characters)) == count


def test_text_without_blank_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    found = corpus(file, "one line of text\n" * 100, document_characters=100)
    assert len(found) == 9 and {len(d.text) % 17 for d in found} == {16}


def test_records_with_text_are_documents_too(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert corpus(file, json.dumps([{"text": "One."}, "Two."])) == [Document("One."), Document("Two.")]


def test_a_file_that_changes_after_its_digest_was_taken_is_refused(tmp_path: Path) -> None:
    """Or what is read would stand in the store under the fingerprint of what was there when the run was planned."""
    files = Files(instructions=write(tmp_path / "a.jsonl", *numbered(40)))
    planned = files.content_digest()
    write(tmp_path / "a.jsonl", *numbered(41))
    assert files.content_digest() == planned
    with pytest.raises(DataError, match=r"a\.jsonl has changed since this run began; start it again"):
        files.instructions("train")
    assert Files(instructions=str(tmp_path / "a.jsonl")).content_digest() != planned


def test_what_is_done_about_bad_records_is_no_part_of_what_is_made(tmp_path: Path) -> None:
    """What "stop" made met none, so "skip" would have made the same, and finds it in the store."""
    file = write(tmp_path / "a.jsonl", *numbered(20))
    node = {"_target_": "alignlab.data.files.Files", "instructions": file}
    found = [parse({**node, "on_bad_record": choice}, "data").identity() for choice in ("stop", "skip")]
    assert found[0] == found[1]
