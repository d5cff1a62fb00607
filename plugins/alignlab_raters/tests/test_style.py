"""Style and diversity: closed forms, and the numbers of a published implementation."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from alignlab_raters import StyleEvaluation
from alignlab_raters import style as module

from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.world import World
from alignlab.evaluation.diversity import bleu, distinct, self_bleu
from alignlab.policy import Sample, Sampling
from alignlab.testing import Check, conforms_evaluation, tiny_policy


class Questions(DataSource):
    """Three questions in the words of the tiny tokenizer."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [Prompt.user(f"what does {n} like ?") for n in ("ana", "bo", "cy")]


@conforms_evaluation(lambda: StyleEvaluation(Questions(), samples_per_prompt=2))
def test_conforms(check: Check) -> None:
    check()


# ---- diversity -------------------------------------------------------------------------------------------------------
def test_distinct_by_hand() -> None:
    """Five words of which three are different; the pairs a b, b a, a b are two."""
    assert distinct(["a b a", "a c"], 1) == pytest.approx(3 / 5)
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a", ""], 2) is None, "no pair"


@pytest.mark.parametrize(
    ("text", "references", "expected"),
    [
        ("the cat sat on the mat", ["the cat is on the mat", "there is a cat on the mat"], 0.25406637407730737),
        ("a b c d e", ["a b x d e f"], 0.1315583108989736),
    ],
)
def test_bleu_is_the_published_implementations(text: str, references: list[str], expected: float) -> None:
    """NLTK 3.10: sentence_bleu with SmoothingFunction().method1."""
    assert bleu(text, references) == pytest.approx(expected, rel=1e-9)


def test_bleu_by_hand() -> None:
    """Two of three words in a reference of six: p = 2/3, 1/2, 0.1/1; the penalty is exp(1 - 6/3)."""
    assert bleu("a b c", ["a b x y z w"]) == pytest.approx(math.exp(-1) * (2 / 3 * 1 / 2 * 0.1) ** (1 / 3))
    assert bleu("a a a a", ["a b c d"]) == pytest.approx((1 / 4 * 0.1 / 3 * 0.1 / 2 * 0.1) ** (1 / 4)), "clipped"


@pytest.mark.parametrize("text", ["", "a", "a b", "a b c d e f"])
def test_a_text_is_made_of_itself_and_not_of_other_words(text: str) -> None:
    assert bleu(text, ["x y", text]) == pytest.approx(1.0)
    assert bleu(text, ["x y"]) == 0
    assert self_bleu([text] * 3) == pytest.approx(1.0)


# ---- the evaluation --------------------------------------------------------------------------------------------------
ANSWERS = ("i think - tea", "certainly ! - tea", "perhaps thanks ?", "perhaps thanks ?")


def measured(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> dict[str, float]:
    """Of a policy that gives the same four answers to everything, each drawn with probability 1/4."""

    def answers(policy: Any, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        logp = (math.log(0.5),) * 2
        return [Sample(p, (0,), (0, 0), ANSWERS[i % 4], True, logp) for i, p in enumerate(prompts)]

    monkeypatch.setattr(module, "generate", answers)
    return dict(StyleEvaluation(Questions(), **arguments)(tiny_policy(), Sampling(), 0).metrics)


def test_style_is_what_raters_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 14 words 9 are different; of 10 pairs "- tea", "perhaps thanks" and "thanks ?" are there twice."""
    found = measured(monkeypatch)
    expected = {"words": 3.5, "list": 0.25, "hedge": 0.75, "confident": 0.25, "ask": 0.5, "polite": 0.5}
    expected |= {
        "exclamations": 0.25,
        "abstains": 0.0,
        "agrees": 0.0,
        "empty": 0.0,
        "different": 0.75,
        "entropy": math.log(4),
    }
    expected |= {"distinct_1": 9 / 14, "distinct_2": 0.7, "self_bleu_4": self_bleu(ANSWERS)}
    assert {k: float(found[f"profile_{k}"]) for k in expected} == pytest.approx(expected)
    assert len(found) == len(expected)


def test_a_model_without_choice_has_no_diversity() -> None:
    policy = tiny_policy()
    found = StyleEvaluation(Questions(), name="greedy")(policy, Sampling(temperature=0, max_new_tokens=8), 0).metrics
    assert float(found["greedy_self_bleu_4"]) == pytest.approx(1.0) and float(found["greedy_different"]) == 0.25
    assert float(found["greedy_entropy"]) == 0


def test_entropy_of_a_uniform_policy() -> None:
    """Every token is as likely: log V for each that is drawn."""
    policy = tiny_policy()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    found = StyleEvaluation(Questions(), samples_per_prompt=8)(policy, Sampling(max_new_tokens=1), 0).metrics
    assert float(found["profile_entropy"]) == pytest.approx(math.log(len(policy.tokenizer)), rel=1e-6)


def test_the_worlds_grammar_reads_style_where_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "perhaps" is no hedge in the language of the world, and "- tea" is a list anywhere."""
    world = World(entities=8, unknown=2, training_documents=20, training_instructions=20)

    class Asked(Questions):
        VERSION: ClassVar[str] = "1"

        def prompts(self, split: Split) -> Sequence[Prompt]:
            return world.prompts("train")[:3]

    monkeypatch.setattr(module, "generate", lambda p, prompts, *_, **__: [
        Sample(x, (0,), (0,), ANSWERS[i % 4], True, (0.0,)) for i, x in enumerate(prompts)
    ])  # fmt: skip
    found = StyleEvaluation(Asked(), knowledge=world, split="train")(tiny_policy(), Sampling(), 0).metrics
    assert float(found["profile_hedge"]) == 0.25 and float(found["profile_list"]) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples_per_prompt": 1}, "samples_per_prompt must be >= 2, got 1"),
        ({"limit": 0}, "limit must be >= 1 or null, got 0"),
        ({"name": "kind"}, "a field of every sample"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleEvaluation(Questions(), **arguments)
