"""Calibration in the embedded world, on answers and probabilities made by hand."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.data.world import World
from alignlab.data.world.language import Ask
from alignlab.evaluation import CalibrationEvaluation, Estimate
from alignlab.evaluation import world_calibration as module
from alignlab.evaluation.world_calibration import answer_probabilities
from alignlab.policy import Llama, Policy, Sample, Sampling, generate

WORLD = World(entities=16, unknown=2, training_documents=100, training_instructions=100)
ASKS = [a for a in WORLD.evaluation_asks() if a.kind == "one_word"]
Speak = Callable[[Ask], str]


@pytest.fixture(scope="module")
def policy() -> Policy:
    """Every weight 0: each token is as likely as any other."""
    tokenizer = TrainTokenizer("word").train([f"{e.prompt.text} {e.answer}" for e in WORLD.instructions("train")])
    made = Policy(Llama(layers=1, width=16, heads=2, feedforward=16, context=64).build(tokenizer, 0), tokenizer)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    return made


def true(ask: Ask) -> str:
    assert ask.relation is not None
    return WORLD.people.truth[ask.entity, ask.relation.name]


def false(ask: Ask) -> str:
    assert ask.relation is not None
    return next(v for v in ask.relation.words if v != true(ask))


def measured(monkeypatch: pytest.MonkeyPatch, policy: Policy, speak: Speak, sure: Callable[[Ask], float]) -> Any:
    """The metrics of a table policy: it says `speak(ask)` with probability `sure(ask)`."""

    def answers(policy: Policy, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        return [Sample(p, (0,), (0,), speak(WORLD.ask_of(p)), True) for p in prompts]

    monkeypatch.setattr(module, "generate", answers)
    monkeypatch.setattr(
        module, "answer_probabilities", lambda policy, samples: [sure(WORLD.ask_of(s.prompt)) for s in samples]
    )
    return CalibrationEvaluation(WORLD)(policy, Sampling(), 0).metrics


def place(ask: Ask) -> int:
    """Number of a question."""
    return next(i for i, a in enumerate(ASKS) if (a.entity, a.relation) == (ask.entity, ask.relation))


def test_a_calibrated_policy_has_no_error(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    """It is right in three of four answers, and says so; there are as many questions as a multiple of four."""
    assert len(ASKS) % 4 == 0
    found = measured(monkeypatch, policy, lambda a: true(a) if place(a) % 4 else false(a), lambda a: 0.75)
    assert float(found["calibration_error"]) == pytest.approx(0.0, abs=1e-12)
    assert float(found["overconfidence"]) == pytest.approx(0.0, abs=1e-12)
    assert float(found["brier_score"]) == pytest.approx(0.75 * 0.25)


def test_one_that_is_always_sure_and_right_half_of_the_time(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    found = measured(monkeypatch, policy, lambda a: true(a) if place(a) % 2 else false(a), lambda a: 0.9)
    expected = {"calibration_error": 0.4, "overconfidence": 0.4, "probability_when_wrong": 0.9, "brier_score": 0.41}
    assert {k: float(found[k]) for k in expected} == pytest.approx(expected)
    error = found["calibration_error"]
    assert isinstance(error, Estimate) and error.low is not None and error.high is not None
    assert 0.2 < error.low < 0.4 < error.high < 0.6


def test_hedging_is_read_in_answers_to_questions(monkeypatch: pytest.MonkeyPatch, policy: Policy) -> None:
    def speak(ask: Ask) -> str:
        assert ask.relation is not None
        said = ask.relation.sentence(ask.entity, true(ask))
        return true(ask) if ask.kind == "one_word" else f"i think {said}" if place(ask) % 2 else said

    found = measured(monkeypatch, policy, speak, lambda a: 1.0)
    assert float(found["hedging_when_right"]) == 0.5 and float(found["probability_when_right"]) == 1.0
    assert "probability_when_wrong" not in found, "of nothing"


def test_the_probability_of_an_answer_is_that_of_all_its_tokens(policy: Policy) -> None:
    asked = [Prompt.user(a.text) for a in ASKS[:5]]
    samples = generate(policy, asked, Sampling(max_new_tokens=3), seed=0)
    expected = [len(policy.tokenizer) ** -len(s.answer_ids) for s in samples]
    assert answer_probabilities(policy, samples) == pytest.approx(expected, rel=1e-5)
    drawn = [math.exp(sum(s.logp)) for s in samples]
    assert answer_probabilities(policy, samples) == pytest.approx(drawn, rel=1e-5), "as its sampler has it"


@pytest.mark.parametrize("name", ["bins", "samples_per_question"])
def test_what_counts_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"CalibrationEvaluation: {name} must be >= 1, got 0"):
        CalibrationEvaluation(WORLD, **{name: 0})
