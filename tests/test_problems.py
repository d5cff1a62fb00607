"""Problems: one message with every kind, how many there are of it, and where the first stands."""

import json
from dataclasses import asdict

import pytest

from alignlab.data.problems import MOST_KINDS, Problems, fact_of, kind_of
from alignlab.errors import DataError


def test_records_of_one_kind_are_counted_and_the_first_is_shown() -> None:
    problems = Problems()
    for line, number in ((3, 7), (5, 8), (9, 9)):
        problems.add(f"a.jsonl:{line}", f"field 'output' must be text, found a number: {number}")
    problems.add("a.jsonl:4", "field 'input' must be text, found a number: 1")
    assert len(problems) == 4
    assert problems.lines() == [
        "a.jsonl:3: field 'output' must be text, found a number: 7 (3 such, next: a.jsonl:5, a.jsonl:9)",
        "a.jsonl:4: field 'input' must be text, found a number: 1",
    ]
    with pytest.raises(DataError) as caught:
        problems.stop("correct them")
    assert str(caught.value).split("\n") == [
        "4 records cannot be used:",
        *(f"  {line}" for line in problems.lines()),
        "correct them",
    ]


def test_a_single_problem_is_one_line() -> None:
    problems = Problems()
    problems.stop("nothing to do")
    assert not problems
    problems.add("a.jsonl:3", "broken JSON")
    assert problems.message("correct it") == "a.jsonl:3: broken JSON; correct it"


def test_kinds_differ_in_more_than_quoted_texts_and_numbers() -> None:
    assert kind_of("a message holds '<s>', at 3") == kind_of('a message holds "it\'s", at 12')
    assert kind_of("field 'a' is missing") != kind_of("field 'b' is missing")


def test_the_fact_of_a_message_ends_at_its_first_semicolon_outside_quotes() -> None:
    assert fact_of("holds 'a; b', a token; change it; or skip it") == "holds 'a; b', a token"
    assert fact_of("no semicolon") == "no semicolon"


def test_collections_are_added_up() -> None:
    one, two = Problems(), Problems()
    one.add("a:1", "x 1")
    two.add("b:1", "x 2")
    two.add("b:2", "y")
    one.update(two)
    assert one.lines() == ["a:1: x 1 (2 such, next: b:1)", "b:2: y"]


def test_the_next_few_places_are_shown_and_each_once() -> None:
    one, two = Problems(), Problems()
    for line in (1, 1, 2):
        one.add(f"a:{line}", "x")
    for line in (2, 3, 4, 5):
        two.add(f"a:{line}", "x")
    one.update(Problems.of_json(json.loads(json.dumps(asdict(two)))))
    assert one.lines() == ["a:1: x (7 such, next: a:2, a:3)"]


def test_a_message_stays_readable_when_every_record_is_wrong_in_its_own_way() -> None:
    problems = Problems()
    for word in range(MOST_KINDS + 5):
        problems.add(f"a:{word}", f"kind {chr(65 + word)}")
    assert problems.lines()[-1] == "and 5 more kinds of problem" and len(problems.lines()) == MOST_KINDS + 1
