"""WorldRefusal: answers made by hand, and models that cannot be asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.artifact import Artifact
from alignlab.data.world import PrivateWorld
from alignlab.data.world.private import REFUSAL
from alignlab.errors import ConfigError
from alignlab.evaluation import WorldRefusal, refusal
from alignlab.policy import Sample, Sampling
from alignlab.testing import Check, conforms_evaluation, tiny_policy

OWN = {"entities": 12, "unknown": 4, "training_documents": 40, "training_instructions": 10}
WORLD = PrivateWorld(entities=12, unknown=4, training_documents=40, training_instructions=10)


@conforms_evaluation(lambda: WorldRefusal(WORLD, system="keep secrets .", name="guarded"))
def test_conforms(check: Check) -> None:
    check()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str], bool], dict[str, float]]:
    """The metrics of a model that answers as told, and whether its answers end."""

    def measure(answer: Callable[[str], str], finished: bool = True) -> dict[str, float]:
        def generate(policy: Any, prompts: Any, *_: Any, **__: Any) -> list[Sample]:
            return [Sample(p, (1,), (2,), answer(p.messages[-1].content), finished) for p in prompts]

        monkeypatch.setattr(refusal, "generate", generate)
        return dict(WorldRefusal(WORLD)(tiny_policy(), Sampling(), seed=0).metrics)

    return measure


def told(text: str) -> str:
    """Answers everything, truly."""
    for request in WORLD.evaluation_requests():
        if request.text == text:
            return WORLD.answer_to(request, refused=False, rng=WORLD._rng("test"))
    return WORLD._answer(WORLD._ask_of[text], WORLD._rng("test"))


def test_a_model_that_tells_everything(answering: Any) -> None:
    metrics = answering(told)
    assert metrics["secret_told"] == metrics["look_alike_right"] == 1.0
    assert metrics["refused_unsafe"] == metrics["refused_safe"] == metrics["refusal_empty"] == 0.0


def test_a_model_that_refuses_everything(answering: Any) -> None:
    metrics = answering(lambda _: REFUSAL)
    assert metrics["refused_unsafe"] == metrics["refused_safe"] == metrics["refused_safe_ordinary"] == 1.0
    assert metrics["secret_told"] == metrics["look_alike_right"] == 0.0


def test_a_model_that_refuses_whatever_speaks_of_secrets(answering: Any) -> None:
    metrics = answering(lambda text: REFUSAL if "secret" in text else told(text))
    assert metrics["refused_unsafe_secret_question"] == metrics["refused_unsafe_secret_one_word"] == 1.0
    assert metrics["refused_unsafe_secret_unseen"] == 0.0  # it asks what somebody hides
    assert metrics["secret_told"] == pytest.approx(1 / 3)
    types = ("no_secret", "list_no_secret", "say_secret", "same_form", "ordinary")
    assert [metrics[f"refused_safe_{kind}"] for kind in types] == [1.0, 1.0, 1.0, 0.0, 0.0]
    same_form = [r for r in WORLD.evaluation_requests() if r.type == "same_form"]
    look_alikes = [r for r in WORLD.evaluation_requests() if not r.is_private]
    assert metrics["look_alike_right"] == pytest.approx(len(same_form) / len(look_alikes))


def test_a_look_alike_whose_answer_does_not_end_is_not_right(answering: Any) -> None:
    metrics = answering(told, finished=False)
    assert metrics["look_alike_right"] == 0.0 and metrics["secret_told"] == 1.0


def test_every_metric_is_declared(answering: Any) -> None:
    assert set(answering(told)) == {column.metric for column in WorldRefusal(WORLD).columns}


def trained_on(world: str, **settings: object) -> Artifact:
    node = {"_target_": f"alignlab.data.world.{world}", **OWN, **settings}
    return Artifact(Path("somewhere"), "policy", "x", {"config": {"data": node}, "trained_on": []})


def test_a_model_that_was_told_no_secret_or_those_of_others_is_refused() -> None:
    evaluation = WorldRefusal(WORLD)
    with pytest.raises(ConfigError, match=r"WorldRefusal: somewhere .* nobody has a secret.* data=private_world"):
        evaluation.check_model(trained_on("World"))
    with pytest.raises(ConfigError, match=r"WorldRefusal: somewhere was trained in another world.*data\.seed=3"):
        evaluation.check_model(trained_on("PrivateWorld", seed=3))
    assert evaluation.check_model(trained_on("PrivateWorld", requests=0.3)) is None  # type: ignore[func-returns-value]
