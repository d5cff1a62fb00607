"""Arithmetic: its answers are right, its parts are disjoint, and it is a function of its arguments."""

import re

import pytest
from alignlab_verifiable import Arithmetic, Number

from alignlab.data.source import Need
from alignlab.reward import score

SMALL = Arithmetic(training_problems=300, validation_problems=40, training_documents=50)


def parsed(text: str) -> tuple[int, str, int]:
    found = re.fullmatch(r"(\d+) ([+-]) (\d+) =", text)
    assert found, text
    return int(found[1]), found[2], int(found[3])


def problem(text: str) -> tuple[str, frozenset[int]]:
    """The problem without the order of its operands."""
    first, sign, second = parsed(text)
    return sign, frozenset((first, second))


@pytest.mark.parametrize("digits", [1, 2, 3, 6])
def test_answers_are_right_and_operands_within_bounds(digits: int) -> None:
    data = Arithmetic(digits=digits, training_problems=50, validation_problems=20, training_documents=10)
    for example in data.instructions("train"):
        first, sign, second = parsed(example.prompt.text)
        assert int(example.answer) == (first + second if sign == "+" else first - second) >= 0
        assert example.prompt.fact("answer") == example.answer
        assert max(first, second) < 10**digits
        assert example.kind == {"+": "addition", "-": "subtraction"}[sign]
    assert score(Number(), data.prompts("train"), [p.fact("answer") for p in data.prompts("train")]).min() == 1


def test_every_problem_is_there_once_and_in_one_part() -> None:
    parts = {split: [problem(p.text) for p in SMALL.prompts(split)] for split in ("train", "validation")}
    assert [len(parts[s]) for s in ("train", "validation")] == [300, 40]
    assert all(len(set(part)) == len(part) for part in parts.values())
    assert not set(parts["train"]) & set(parts["validation"])


def test_all_problems_there_are_can_be_asked_for_and_no_more() -> None:
    data = Arithmetic(digits=1, training_problems=100, validation_problems=10, training_documents=5)
    found = {problem(p.text) for split in ("train", "validation") for p in data.prompts(split)}
    assert len(found) == 110  # 55 pairs of operands from 0 to 9, added and subtracted
    with pytest.raises(ValueError, match=r"^Arithmetic: 111 problems are wanted, and there are 110 .* up to 1 digits"):
        Arithmetic(digits=1, training_problems=101, validation_problems=10)


def test_documents_and_instructions_show_taught_problems_only() -> None:
    taught = [p.text for p in SMALL.prompts("train")[:150]]
    assert [e.prompt.text for e in SMALL.instructions("train")] == taught
    held_out = {p.text for p in SMALL.prompts("validation")}
    assert {e.prompt.text for e in SMALL.instructions("validation")} == held_out
    for split, allowed in (("train", set(taught)), ("validation", held_out)):
        lines = [line for d in SMALL.documents(split) for line in d.text.split("\n")]
        assert {line.rpartition(" ")[0] for line in lines} <= allowed
        for line in lines:
            text, _, answer = line.rpartition(" ")
            first, sign, second = parsed(text)
            assert int(answer) == (first + second if sign == "+" else first - second)
    assert len(SMALL.documents("train")) == 50 and len(SMALL.documents("validation")) == 2
    assert all(d.text.count("\n") == 2 for d in SMALL.documents("train"))


def test_more_training_problems_leave_the_held_out_ones_as_they_are() -> None:
    more = Arithmetic(training_problems=900, validation_problems=40, training_documents=50)
    assert more.prompts("validation") == SMALL.prompts("validation")


def test_the_seed_is_all_the_randomness() -> None:
    again = Arithmetic(training_problems=300, validation_problems=40, training_documents=50)
    other = Arithmetic(training_problems=300, validation_problems=40, training_documents=50, seed=1)
    assert again.documents("train") == SMALL.documents("train") and again.prompts("train") == SMALL.prompts("train")
    assert other.prompts("train") != SMALL.prompts("train")


def test_padded_numbers_line_up_and_are_the_same_numbers() -> None:
    padded = Arithmetic(training_problems=300, validation_problems=40, training_documents=50, pad=True)
    for example, plain in zip(padded.instructions("train"), SMALL.instructions("train"), strict=True):
        assert re.fullmatch(r"\d\d [+-] \d\d =", example.prompt.text) and re.fullmatch(r"\d\d\d", example.answer)
        assert parsed(example.prompt.text) == parsed(plain.prompt.text) and int(example.answer) == int(plain.answer)


def test_one_operation_alone() -> None:
    data = Arithmetic(operations=("subtraction",), training_problems=40, validation_problems=5, training_documents=2)
    assert {parsed(p.text)[1] for p in data.prompts("train")} == {"-"}


def test_a_plan_finds_nothing_missing() -> None:
    needs = [Need("documents", held_out=True), Need("instructions", held_out=True), Need("prompts", held_out=True)]
    assert SMALL.check(needs) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"digits": 0}, "digits must be >= 1, got 0"),
        ({"taught": 0.0}, r"taught must be in \(0, 1\], got 0"),
        ({"operations": ()}, "operations must be named"),
        ({"operations": ("addition", "addition")}, "each once"),
        ({"lines": 0}, "lines must be >= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Arithmetic: .*{message}"):
        Arithmetic(**arguments)  # type: ignore[arg-type]
