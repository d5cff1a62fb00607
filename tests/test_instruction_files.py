"""Files of prompts with instructions, and accuracies with their intervals."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import DataError
from alignlab.instructions import Task, Verdicts, accuracies, instruction, libraries, read_tasks
from alignlab.instructions.accuracy import table, to_json
from alignlab.metrics import wilson

GOOD: dict[str, Any] = {
    "key": 1, "prompt": "Say a.", "response": "a", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}],
}  # fmt: skip


def written(folder: Path, *lines: dict[str, Any] | str) -> Path:
    file = folder / "a.jsonl"
    file.write_text("".join(f"{n if isinstance(n, str) else json.dumps(n)}\n" for n in lines), encoding="utf-8")
    return file


def test_a_line_is_a_task_with_all_of_its_fields(tmp_path: Path) -> None:
    nulls = {**GOOD, "kwargs": [{"num_words": None, "relation": None}]}
    (first, second, third) = read_tasks(written(tmp_path, GOOD, "", nulls, {**GOOD, "kwargs": [None]}), answered=True)
    assert first.fields == GOOD and first.response == "a" and first.kinds == ["punctuation:no_comma"]
    assert first.instructions == second.instructions == third.instructions == (instruction("punctuation:no_comma"),)


def test_prompts_need_no_response_and_a_file_may_be_compressed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps({k: v for k, v in GOOD.items() if k != "response"}).encode()))
    assert [task.prompt for task in read_tasks(file)] == ["Say a."]
    with pytest.raises(DataError, match=r"a\.jsonl\.gz:1: lacks response"):
        read_tasks(file, answered=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "broken JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "a line must be a JSON object, found list"),
        ({**GOOD, "prompt": 3}, "prompt must be a text, got 3"),
        ({**GOOD, "response": None}, "response must be a text, got None"),
        ({**GOOD, "instruction_id_list": []}, r"instruction_id_list must be a list of ids that is not empty, got \[\]"),
        ({**GOOD, "instruction_id_list": "x"}, "instruction_id_list must be a list of ids"),
        ({**GOOD, "kwargs": []}, r"kwargs must be a list of as many objects as there are ids \(1\), got \[\]"),
        ({**GOOD, "kwargs": [[]]}, r"punctuation:no_comma: its kwargs must be an object, got \[\]"),
        ({**GOOD, "kwargs": [{"a": 1}]}, "punctuation:no_comma: has no argument a, got 1"),
        ({**GOOD, "instruction_id_list": ["no_comma"]}, "unknown kind of instruction 'no_comma'"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(line: dict[str, Any] | str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{message}"):
        read_tasks(written(tmp_path, GOOD, line, GOOD), answered=True)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no such file: .*b\.jsonl"):
        read_tasks(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl: the file is empty"):
        read_tasks(written(tmp_path, ""))
    (tmp_path / "a.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\xff\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: not UTF-8"):
        read_tasks(tmp_path / "a.jsonl")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(DataError, match=r"c\.jsonl\.gz: cannot be read"):
        read_tasks(tmp_path / "c.jsonl.gz")
    monkeypatch.setattr(libraries, "_is_installed", lambda name: False)
    english = {**GOOD, "instruction_id_list": ["change_case:english_capital"]}
    with pytest.raises(Exception, match=r"a\.jsonl:1: change_case:english_capital: needs langdetect"):
        read_tasks(written(tmp_path, english))


# ---- accuracies ------------------------------------------------------------------------------------------------------
def judged(*found: tuple[tuple[bool, ...], tuple[bool, ...]]) -> list[tuple[Task, Verdicts]]:
    kinds = (instruction("punctuation:no_comma"), instruction("detectable_format:title"))
    return [(Task(f"Say {i}.", kinds[: len(s)], {}), Verdicts(s, loose)) for i, (s, loose) in enumerate(found)]


def test_accuracies_by_level_and_kind() -> None:
    yes, no = True, False
    found = accuracies(judged(((yes, yes), (yes, yes)), ((yes, no), (yes, yes)), ((no,), (no,)), ((yes,), (yes,))))
    assert list(found) == ["prompt", "instruction", "detectable_format:title", "punctuation:no_comma"]
    assert [float(a.strict) for a in found.values()] == [2 / 4, 4 / 6, 1 / 2, 3 / 4]
    assert [float(a.loose) for a in found.values()] == [3 / 4, 5 / 6, 1.0, 3 / 4]
    assert [a.strict.count for a in found.values()] == [4, 6, 2, 4]
    assert found["prompt"].strict.interval == wilson(2 / 4, 4)
    assert found["punctuation:no_comma"].strict.interval == wilson(3 / 4, 4)


def test_instructions_of_one_prompt_that_are_alike_tell_as_much_as_one() -> None:
    alike = accuracies(judged(*[((True, True), (True, True)), ((False, False), (False, False))] * 10))
    assert alike["instruction"].strict.interval == wilson(1 / 2, 20)


def test_accuracies_as_json_and_as_a_table() -> None:
    found = accuracies(judged(((True, False), (True, True))))
    plain = to_json(found)
    low, high = wilson(0.0, 1)
    counted = {"accuracy": 0.0, "low": low, "high": high, "followed": 0, "count": 1}
    assert plain["prompt"]["strict"] == counted and list(plain) == ["prompt", "instruction", "kinds"]  # type: ignore[index]
    assert list(plain["kinds"]) == ["detectable_format:title", "punctuation:no_comma"]  # type: ignore[call-overload]
    lines = table(found)
    assert lines[1] == f"{'prompts':<44}    1    0% (0–79)     100% (21–100)"
    assert [line.split()[0] for line in lines[1:]] == ["prompts", "instructions", *plain["kinds"]]  # type: ignore[misc]
    assert max(map(len, lines)) <= 80
