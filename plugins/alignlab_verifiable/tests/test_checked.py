"""The checked rewards on answers whose verdict can be told by reading them."""

from pathlib import Path

import pytest
from alignlab_verifiable import ExactAnswer, Format, Length, Regex, Weighted

from alignlab import RewardSource
from alignlab.data.files import Files
from alignlab.data.records import Prompt
from alignlab.errors import DataError, NonFiniteError
from alignlab.reward import score, score_in_parts
from alignlab.testing import Check, conforms_reward_source


def asked(answer: str) -> Prompt:
    """A question whose reference answer is known."""
    return Prompt(Prompt.user("what ?").messages, (("answer", answer),))


def verdict(source: RewardSource, answer: str, reference: str = "42") -> float:
    (found,) = score(source, [asked(reference)], [answer]).tolist()
    return float(found)


# ---- ExactAnswer -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "reference", "source", "right"),
    [
        ("Paris", "paris", ExactAnswer(), 1),
        ("Paris", "paris", ExactAnswer(ignore_case=False), 0),
        ("  the\n Seine ", "the seine", ExactAnswer(), 1),
        ("the  Seine", "the Seine", ExactAnswer(ignore_blanks=False), 0),
        ("ｆｉｎ", "fin", ExactAnswer(), 1),
        ("ｆｉｎ", "fin", ExactAnswer(ignore_form=False), 0),
        ("yes .", "yes", ExactAnswer(), 1),
        ("yes.", "yes", ExactAnswer(ignore_period=False), 0),
        ("yes..", "yes", ExactAnswer(), 0),
        ("STRASSE", "Straße", ExactAnswer(), 1),
        ("", "yes", ExactAnswer(), 0),
        ("yes yes", "yes", ExactAnswer(), 0),
        ("so #### 4 #### 5", "why #### 5", ExactAnswer(marker="####"), 1),
        ("5", "why #### 5", ExactAnswer(marker="####"), 1),
        ("<think>no</think><answer> yes </answer>", "yes", ExactAnswer(tag="answer"), 1),
        ("<answer>no</answer><answer>yes</answer>", "yes", ExactAnswer(tag="answer"), 1),
        ("yes", "yes", ExactAnswer(tag="answer"), 0),
        ("<answer>yes", "yes", ExactAnswer(tag="answer"), 0),
    ],
)
def test_exact_answer(answer: str, reference: str, source: ExactAnswer, right: int) -> None:
    assert verdict(source, answer, reference) == right


def test_a_prompt_without_a_reference_is_named_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"^ExactAnswer: the prompt 'what \?' has no fact 'answer' .*data\.facts"):
        score(ExactAnswer(), [Prompt.user("what ?")], ["yes"])
    with pytest.raises(DataError, match=r"^ExactAnswer: the fact 'answer' of the prompt 'what \?' is empty"):
        verdict(ExactAnswer(), "", " . ")


def test_right_and_wrong_are_what_is_paid() -> None:
    assert verdict(ExactAnswer(right=2.0, wrong=-0.5), "42") == 2.0
    assert verdict(ExactAnswer(right=2.0, wrong=-0.5), "43") == -0.5


# ---- Regex -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pattern", "whole", "answer", "right"),
    [
        (r"\d+", True, "12", 1),
        (r"\d+", True, "12 apples", 0),
        (r"\d+", True, "12\n", 0),
        (r"\d+", False, "12 apples", 1),
        (r"a|b", True, "ab", 0),
        (r"(?i)YES", True, "yes", 1),
        (r"(?s)a.b", True, "a\nb", 1),
        (r"größe", True, "größe", 1),
        (r".", True, "😀", 1),
        (r"x", False, "\ud800x", 1),
        (r"", True, "", 1),
    ],
)
def test_regex(pattern: str, whole: bool, answer: str, right: int) -> None:
    assert verdict(Regex(pattern, whole), answer) == right


def test_no_pattern_runs_away() -> None:
    """Python's own engine would take longer than the universe has lasted."""
    assert verdict(Regex(r"(a+)+", True), "a" * 50_000 + "b") == 0
    assert verdict(Regex(r"(a|a)*", True), "a" * 50_000 + "b") == 0


@pytest.mark.parametrize("pattern", [r"(a)\1", r"a(?=b)", "(", "[", r"a{2000}"])
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(
        ValueError, match=r"^Regex: pattern .* cannot be used: .* neither backreferences nor look-around"
    ):
        Regex(pattern)


# ---- Length ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("words", "earned"), [(0, 0.5), (1, 0.75), (2, 1.0), (4, 1.0), (6, 0.5), (8, 0.0), (100, 0.0)])
def test_length_falls_linearly_outside_of_its_range(words: int, earned: float) -> None:
    assert verdict(Length(2, 4, 4.0), "word " * words) == earned


def test_length_in_characters() -> None:
    assert verdict(Length(0, 3, 2.0, "characters"), "abcd") == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((5, 4), "low <= high, got 5 and 4"), ((-1, 4), "0 <= low"), ((1, 4, 0.0), "slope must be > 0, got 0")],
)
def test_length_refuses_what_is_not_a_range(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Length: .*{message}"):
        Length(*arguments)


# ---- Format ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "right", "loose"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        (" <think>a\nb</think>\n<answer>b</answer>\n", 1, 1),
        ("well <think>a</think> so <answer>b</answer> bye", 0, 1),
        ("<answer>b</answer><think>a</think>", 0, 0),
        ("<think>a</think>", 0, 0),
        ("<think>a<answer>b</answer></think>", 0, 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0, 0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0, 0),
        ("<think>a</think><answer>b", 0, 0),
        ("<think>a</think><answer> </answer>", 0, 1),
        ("<THINK>a</THINK><answer>b</answer>", 0, 0),
        ("<think>1 < 2 <b></think><answer>b</answer>", 1, 1),
        ("", 0, 0),
    ],
)
def test_format(answer: str, right: int, loose: int) -> None:
    assert verdict(Format(), answer) == right
    assert verdict(Format(text_outside=True, empty=True), answer) == loose


@pytest.mark.parametrize("tags", [(), ("a", "a"), ("a b",), ("",), ("<a>",)])
def test_format_refuses_what_is_not_a_tag(tags: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^Format: "):
        Format(tags)


# ---- Weighted --------------------------------------------------------------------------------------------------------
def weighted() -> Weighted:
    rewards = {"correct": ExactAnswer(tag="answer"), "format": Format()}
    return Weighted(rewards, {"correct": 1.0, "format": 0.25})


def test_weighted_is_the_sum_and_reports_each_part_unweighted() -> None:
    answers = ["<think>a</think><answer>42</answer>", "<answer>42</answer>", "<think>a</think><answer>7</answer>", "42"]
    found = score_in_parts(weighted(), [asked("42")] * 4, answers)
    assert found.total.tolist() == [1.25, 1.0, 0.25, 0.0]
    assert {k: v.tolist() for k, v in found.parts.items()} == {"correct": [1, 1, 0, 0], "format": [1, 0, 1, 0]}
    assert weighted().describe() == "1 ExactAnswer + 0.25 Format"


class Broken(RewardSource):
    """Its scores are not finite."""

    VERSION = "1"

    def score(self, prompts, answers):  # type: ignore[no-untyped-def]
        import torch

        return torch.full((len(answers),), float("nan"))


def test_a_part_that_is_not_finite_is_named() -> None:
    with pytest.raises(NonFiniteError, match=r"^Broken: scored nan for the answer 'a' to 'what"):
        verdict(Weighted({"odd": Broken()}, {"odd": 0.0}), "a")


@pytest.mark.parametrize(
    ("rewards", "weights", "message"),
    [
        ({}, {}, "rewards is empty"),
        ({"a": Format()}, {"b": 1.0}, r"rewards are \['a'\] and weights \['b'\]; a needs both"),
        ({"A b": Format()}, {"A b": 1.0}, "'A b' cannot name a metric"),
        ({"a": Format()}, {"a": float("inf")}, "weights must be finite"),
        (
            {"a": weighted(), "a_format": Format()},
            {"a": 1.0, "a_format": 1.0},
            "two scores would be logged as a_format; rename one",
        ),
    ],
)
def test_weighted_refuses(rewards: dict[str, RewardSource], weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Weighted: {message}"):
        Weighted(rewards, weights)


# ---- the kit ---------------------------------------------------------------------------------------------------------
KNOWN = [asked("tea"), asked("42")]


@conforms_reward_source(lambda: ExactAnswer(right=2.0, wrong=-1.0), prompts=KNOWN, answers=["tea", "42"])
def test_exact_answer_conforms(check: Check) -> None:
    check()


@conforms_reward_source(lambda: Regex("tea"))
def test_regex_conforms(check: Check) -> None:
    check()


@conforms_reward_source(Length)
def test_length_conforms(check: Check) -> None:
    check()


@conforms_reward_source(lambda: Format(("a",), text_outside=True))
def test_format_conforms(check: Check) -> None:
    check()


@conforms_reward_source(
    weighted, prompts=KNOWN, answers=["<answer>tea</answer>", "<think>a</think><answer>42</answer>"]
)
def test_weighted_conforms(check: Check) -> None:
    check()


# ---- published data --------------------------------------------------------------------------------------------------
def test_a_column_of_a_file_is_a_reference(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"prompt": "capital ?", "completion": "it is Paris", "city": "Paris"}\n')
    (prompt,) = Files(instructions=str(file), facts=("city",), validation_fraction=0.0).prompts("train")
    assert score(ExactAnswer(fact="city"), [prompt] * 2, ["paris.", "Rome"]).tolist() == [1, 0]
