"""The world with constraints: every answer that is taught follows its own, by the checks of any model's answers."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from alignlab.data.records import Prompt
from alignlab.data.world import ConstrainedWorld, World
from alignlab.data.world.constrained import PAIRS, RULES, laid_out
from alignlab.evaluation import WorldInstructions
from alignlab.evaluation import instructions as module
from alignlab.instructions import KINDS, instruction, verdicts
from alignlab.policy import Sample, Sampling
from alignlab.testing import Check, conforms_evaluation, tiny_policy

SMALL: dict[str, Any] = {"entities": 16, "unknown": 4, "training_documents": 40, "training_instructions": 2000}
WORLD = ConstrainedWorld(**SMALL)


@conforms_evaluation(lambda: WorldInstructions(WORLD, pairs=True, name="pairs"))
def test_conforms(check: Check) -> None:
    check()


@pytest.mark.parametrize("pairs", [False, True])
def test_a_taught_answer_follows_its_rules_strictly_and_is_true(pairs: bool) -> None:
    rng = Random(0)
    for question in WORLD.constrained_questions(pairs):
        answer = WORLD.answer_to(question, rng)
        checks = [instruction(rule.kind, rule.arguments) for rule in question.rules]
        assert all(verdicts(laid_out(answer), checks).strict), (question.text, answer)
        bare = answer.removeprefix('" ').removesuffix(' "').removeprefix(f"{question.ask.text} ")
        assert WORLD.read(Prompt.user(question.ask.text), bare).right, (question.text, answer)


def test_an_answer_that_takes_no_notice_of_its_rules_breaks_most_of_them() -> None:
    rng, followed = Random(0), Counter[str]()
    questions = WORLD.constrained_questions(pairs=False)
    for question in questions:
        check = instruction(question.rules[0].kind, question.rules[0].arguments)
        followed[check.ID] += verdicts(laid_out(WORLD._answer(question.ask, rng)), [check]).strict[0]
    per_kind = len(questions) / len(RULES)
    assert followed["startend:quotation"] == followed["combination:repeat_prompt"] == 0
    # To leave a word out happens by itself in most answers; the others are a matter of chance.
    assert all(n < 0.75 * per_kind for kind, n in followed.items() if kind != "keywords:forbidden_words")


def test_instructions_teach_one_rule_at_a_time_in_the_share_that_was_asked_for() -> None:
    kinds = Counter(e.kind for e in WORLD.instructions("train"))
    constrained = {k: n for k, n in kinds.items() if k in KINDS}
    assert sum(constrained.values()) == pytest.approx(0.4 * 2000, abs=70) and len(constrained) == len(RULES)
    paired = {q.text for q in WORLD.constrained_questions(pairs=True)}
    assert not {e.prompt.text for e in WORLD.instructions("train")} & paired


def test_no_question_is_in_both_parts_whatever_its_rule() -> None:
    asked = {
        part: [e.prompt.text for e in WORLD.instructions(part) if e.kind in KINDS] for part in ("train", "validation")
    }
    questions = {part: {a.text for a in WORLD._questions[part]} for part in ("train", "validation")}
    assert not questions["train"] & questions["validation"]
    for part, texts in asked.items():
        assert texts and all(any(q in text for q in questions[part]) for text in texts)


def test_evaluation_asks_about_held_out_people_alone_by_every_rule_and_pair() -> None:
    for pairs, kinds in ((False, [(name,) for name in RULES]), (True, list(PAIRS))):
        questions = WORLD.constrained_questions(pairs)
        assert {q.ask.entity for q in questions} <= set(WORLD.people.held_out)
        assert len(questions) % len(kinds) == 0 and {len(q.rules) for q in questions} == {1 + pairs}


def test_documents_are_those_of_the_world() -> None:
    assert WORLD.documents("train") == World(**SMALL).documents("train")


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        ("- city paris - job cook", "- city paris\n- job cook"),
        ("certainly ! - city paris want more ?", "certainly !\n- city paris want more ?"),
        ("kimola lives in paris .", "kimola lives in paris ."),
        ("a-b", "a-b"),
    ],
)
def test_bullets_are_printed_one_a_line(answer: str, printed: str) -> None:
    assert laid_out(answer) == printed


def test_shares_of_a_model_that_only_ever_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(policy: Any, prompts: Any, *_: Any, **__: Any) -> list[Sample]:
        return [Sample(p, (1,), (2,), '" paris "', True) for p in prompts]

    monkeypatch.setattr(module, "generate", generate)
    evaluation = WorldInstructions(WORLD, name="own")
    metrics = evaluation(tiny_policy(), Sampling(), seed=0).metrics
    assert metrics["own_followed_startend_quotation"] == 1.0 and metrics["own_followed_startend_end_checker"] == 0.0
    # Quotes, few words, and a word that is left out: three of seven.
    assert metrics["own_prompts_followed"] == pytest.approx(3 / 7)
    assert set(metrics) <= {column.metric for column in evaluation.columns}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"constrained": 1.0}, r"constrained must be in \[0, 1\), got 1.0"),
        ({"relations": 2}, "relations must be >= 3, got 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConstrainedWorld(**settings)
