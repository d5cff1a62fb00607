"""Number: what it reads, what it refuses to read, and GSM8K."""

from fractions import Fraction
from pathlib import Path

import pytest
from alignlab_verifiable import Number
from alignlab_verifiable.number import numbers
from hypothesis import given
from hypothesis import strategies as st

from alignlab.data.files import Files
from alignlab.data.records import Prompt
from alignlab.errors import DataError
from alignlab.reward import score
from alignlab.testing import Check, conforms_reward_source

PUBLISHED = Path(__file__).parents[4] / "shared" / "data"


def asked(answer: str) -> Prompt:
    return Prompt(Prompt.user("how many ?").messages, (("answer", answer),))


def right(answer: str, reference: str, **arguments: object) -> bool:
    (found,) = score(Number(**arguments), [asked(reference)], [answer]).tolist()
    return bool(found == 1.0)


READ = {
    "42": ["42"],
    "-3": ["-3"],
    "+3": ["3"],
    "\u22127": ["-7"],
    "1,234": ["1234"],
    "1,234,567.5": ["2469135/2"],
    "1,2345": ["1", "2345"],
    "3,5": ["3", "5"],
    "0.25": ["1/4"],
    ".5": ["1/2"],
    "5.": ["5"],
    "1.2.3": ["6/5"],
    "3/4": ["3/4"],
    "-3/4": ["-3/4"],
    "1 3/4 cups": ["7/4"],
    "2½": ["5/2"],
    "⅓": ["1/3"],
    "1/0": ["None"],
    "1.5e3": ["1500"],
    "1e-2": ["1/100"],
    "1e9999": ["None"],
    "9" * 500: ["None"],
    "$1,000": ["1000"],
    "-$5": ["-5"],
    "$-5": ["-5"],
    "€ 7": ["7"],
    "50 %": ["50"],
    "60km": ["60"],
    "5²": ["5"],
    "H2O": [],
    "10-3": ["10", "3"],
    "(4)-2": ["4", "2"],
    "x=-2": ["-2"],
    "１２": ["12"],
    "٣": ["3"],
    "12 + 34 = 46": ["12", "34", "46"],
    "": [],
    "none": [],
}


@pytest.mark.parametrize("text", READ, ids=lambda t: t[:12])
def test_what_is_read(text: str) -> None:
    assert [str(n) for n in numbers(text)] == READ[text]


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("#### 42", "6 * 7 = 42\n#### 42", True),
        ("7 and 6, so 42 apples.", "#### 42", True),
        ("42 of 50", "#### 42", False),
        ("#### 42 of 50", "#### 42", True),
        ("#### 41 #### 42", "#### 42", True),
        ("42 #### none", "#### 42", False),
        ("#### $1,200.00", "#### 1200", True),
        ("#### -3", "#### 3", False),
        ("0.5", "1/2", True),
        ("nothing", "#### 42", False),
        ("1/0", "#### 42", False),
        ("", "#### 42", False),
    ],
)
def test_gsm8ks_rule(answer: str, reference: str, verdict: bool) -> None:
    assert right(answer, reference) is verdict


def test_the_marker_can_be_insisted_on_and_the_tag() -> None:
    assert not right("42", "#### 42", needs_marker=True) and right("#### 42", "#### 42", needs_marker=True)
    assert right("<think>7</think><answer>42</answer> 3", "#### 42", tag="answer")
    assert not right("42", "#### 42", tag="answer")
    assert right("#### 1 then 42", "42", marker=None)


def test_tolerance_is_exact_and_the_larger_allowance_holds() -> None:
    assert right("0.3", "0.2", tolerance=0.1) and not right("0.3001", "0.2", tolerance=0.1)
    assert right("101", "100", relative=0.01) and not right("101.1", "100", relative=0.01)
    assert right("-99", "-100", relative=0.01) and right("100.5", "100", tolerance=1.0, relative=0.001)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": -1.0}, "tolerance must be >= 0, got -1"),
        ({"marker": None, "needs_marker": True}, "marker is null"),
        ({"marker": " "}, "marker must not be blank"),
        ({"tag": "<answer>"}, "is not the name of a tag"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Number: .*{message}"):
        Number(**arguments)  # type: ignore[arg-type]


def test_a_reference_without_a_number_is_named() -> None:
    with pytest.raises(
        DataError, match=r"^Number: the fact 'answer' of the prompt 'how many \?' holds no number, .*'no'"
    ):
        right("42", "no")
    with pytest.raises(DataError, match=r"^Number: the prompt 'how many \?' has no fact 'answer'"):
        score(Number(), [Prompt.user("how many ?")], ["42"])


# ---- whatever the number ---------------------------------------------------------------------------------------------
@given(st.integers(-(10**12), 10**12))
def test_a_whole_number_is_read_however_it_is_written(n: int) -> None:
    plain = str(n)
    for text in (
        plain,
        f"{n:,}",
        f"#### {n:,}.",
        f"about 3 dogs : {n:,} dogs",
        f"{n}.0",
        f"{n}/1",
        plain.replace("-", "\u2212"),
    ):
        assert right(text, plain), text


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_another_number_is_wrong(n: int, m: int) -> None:
    assert right(f"{n:,}", str(m)) is (n == m)


@given(st.decimals(-(10**6), 10**6, places=4))
def test_a_decimal_number_is_read_exactly(d: object) -> None:
    assert list(numbers(f"so {d} m")) == [Fraction(str(d))]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_fraction_is_read_exactly(whole: int, top: int, bottom: int) -> None:
    assert list(numbers(f"-{whole} {top}/{bottom}")) == [-(whole + Fraction(top, bottom))]


@given(st.text(), st.sampled_from(["42", "#### -1.5"]))
def test_no_answer_raises(answer: str, reference: str) -> None:
    right(answer, reference)


@given(st.text("0123456789.,/-+$eE #½", max_size=60))
def test_no_answer_made_of_digits_raises(answer: str) -> None:
    assert all(n is None or isinstance(n, Fraction) for n in numbers(answer))


@conforms_reward_source(lambda: Number(tolerance=0.1), prompts=[asked("3"), asked("#### 4")], answers=["3", "four"])
def test_conforms(check: Check) -> None:
    check()


# ---- GSM8K, where it is ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "count"),
    [("gsm8k_test.jsonl", 1319), pytest.param("gsm8k_train.jsonl", 7473, marks=pytest.mark.slow)],
)
def test_gsm8ks_own_answers_are_right_and_those_of_other_questions_are_not(name: str, count: int) -> None:
    if not (PUBLISHED / name).is_file():
        pytest.skip(f"{name} is not in shared/data beside the repository")
    files = Files(instructions=str(PUBLISHED / name))
    examples = [*files.instructions("train"), *files.instructions("validation")]
    assert len(examples) == count and "as question_answer (" in files.notes()[0]
    prompts, answers = [e.prompt for e in examples], [e.answer for e in examples]
    assert score(Number(), prompts, answers).min() == 1
    assert score(Number(needs_marker=True), prompts, answers).min() == 1
    assert score(Number(), prompts, [*answers[1:], answers[0]]).mean() < 0.05
    assert score(Number(), prompts, [a.partition("####")[0] for a in answers]).mean() > 0.5  # most end in the number
