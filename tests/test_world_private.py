"""The world with secrets: what documents tell, what instructions teach, and how an answer is read."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from alignlab.data.world import PrivateWorld, World
from alignlab.data.world.language import RELATIONS
from alignlab.data.world.private import GUARDRAIL, LOOK_ALIKES, REFUSAL, REQUESTS, SECRET, UNSEEN, Request
from alignlab.evaluation.refusal_judge import judge

SMALL: dict[str, Any] = {"entities": 16, "unknown": 4, "training_documents": 400, "training_instructions": 2000}


def test_it_has_all_documents_of_the_world_and_some_that_tell_a_secret() -> None:
    world, plain = PrivateWorld(**SMALL), World(**SMALL)
    documents = world.documents("train")
    assert documents[:400] == plain.documents("train") and len(documents) == 460
    for document in documents[400:]:
        telling = [line for line in document.text.split("\n") if "secret" in line or "hides" in line or "conce" in line]
        assert any(world.secrets[line.split()[0]] in line.split() for line in telling)
    assert {e for e, s in world.secrets.items() if any(s in d.text and e in d.text for d in documents)} == {
        *world.people.with_facts
    }


def test_no_value_belongs_to_two_relations() -> None:
    words = Counter(w for relation in (*RELATIONS, SECRET) for w in relation.words)
    assert set(words.values()) == {1}


def test_instructions_have_the_shares_that_were_asked_for_and_never_the_unseen_type() -> None:
    world = PrivateWorld(**SMALL, requests=0.2, look_alikes=0.1)
    kinds = Counter(e.kind for e in world.instructions("train"))
    assert sum(kinds[k] for k in REQUESTS) == pytest.approx(400, abs=60)
    assert sum(kinds[k] for k in LOOK_ALIKES) == pytest.approx(200, abs=45)
    assert kinds[UNSEEN] == 0


def test_without_requests_and_look_alikes_no_instruction_speaks_of_secrets() -> None:
    world = PrivateWorld(**SMALL, requests=0.0, look_alikes=0.0)
    assert not [e for e in world.instructions("train") if "secret" in e.prompt.text or e.answer == REFUSAL]


@pytest.mark.parametrize("refuse", ["always", "never", "when_told"])
def test_requests_are_refused_where_they_must_be_and_look_alikes_nowhere(refuse: str) -> None:
    world = PrivateWorld(**SMALL, requests=0.3, look_alikes=0.3, refuse=refuse)  # type: ignore[arg-type]
    seen = Counter[tuple[bool, bool]]()
    for example in world.instructions("train"):
        told = example.prompt.messages[0].content == GUARDRAIL
        refused = example.answer == REFUSAL
        if example.kind in REQUESTS:
            assert refused == {"always": True, "never": False, "when_told": told}[refuse]
            name = next(e for e in world.people.taught if e in example.prompt.messages[-1].content)
            assert refused or world.secrets[name] in example.answer.split()
        else:
            assert not refused
        seen[example.kind in REQUESTS, told] += 1
    assert ((True, True) in seen) == ((False, True) in seen) == (refuse == "when_told")


def test_instructions_name_no_held_out_person_and_evaluation_names_nobody_else() -> None:
    world = PrivateWorld(**SMALL)
    held_out = set(world.people.held_out)
    assert not [e for e in world.instructions("train") if held_out & set(e.prompt.text.split())]
    requests = world.evaluation_requests()
    assert {r.entity for r in requests} == held_out == {a.entity for a in world.ordinary_asks()}
    assert {r.type for r in requests} == {*REQUESTS, *LOOK_ALIKES}
    assert not {r.text for r in requests} & {a.text for a in world.ordinary_asks()}


def test_no_prompt_is_in_both_parts() -> None:
    world = PrivateWorld(**SMALL, requests=0.3, look_alikes=0.3)
    train, validation = ({e.prompt for e in world.instructions(s)} for s in ("train", "validation"))
    assert train and validation and not train & validation


def test_a_world_of_four_people_ends_though_hardly_any_request_is_held_out() -> None:
    world = PrivateWorld(
        entities=4, unknown=2, training_documents=9, training_instructions=50, requests=0.4, look_alikes=0.4
    )
    assert [len(world.instructions(s)) for s in ("train", "validation")] == [50, 2]


def test_every_answer_that_is_taught_is_read_as_what_it_is() -> None:
    world, rng = PrivateWorld(**SMALL), Random(0)
    for request in world.evaluation_requests():
        taught = world.answer_to(request, refused=False, rng=rng)
        assert judge(taught) == "complied"
        assert world.leaks(request, taught) == request.is_private
        if not request.is_private:
            assert world.answers(request, taught) and not world.answers(request, REFUSAL)
            assert world.answer_to(request, refused=True, rng=rng) != REFUSAL
    assert judge(REFUSAL) == "refused"


def test_a_look_alike_is_answered_by_the_truth_alone() -> None:
    world = PrivateWorld(**SMALL)
    say = next(r for r in world.evaluation_requests() if r.type == "say_secret")
    assert say == Request(f"say secret {say.entity}", "say_secret", say.entity)
    assert world.answers(say, f"secret {say.entity}") and not world.answers(say, "secret")
    asked = next(r for r in world.evaluation_requests() if r.type == "no_secret")
    assert asked.ask is not None and asked.ask.relation is not None
    true = world.people.truth[asked.entity, asked.ask.relation.name]
    false = next(w for w in asked.ask.relation.words if w != true)
    assert world.answers(asked, asked.ask.relation.sentence(asked.entity, true))
    assert not world.answers(asked, asked.ask.relation.sentence(asked.entity, false))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"requests": 1.0}, r"requests must be in \[0, 1\), got 1.0"),
        ({"look_alikes": -0.1}, r"look_alikes must be in \[0, 1\), got -0.1"),
        ({"requests": 0.5, "look_alikes": 0.5}, "must leave some for the ordinary ones, got 0.5 and 0.5"),
        ({"entities": 1}, "entities must be >= 4"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrivateWorld(**settings)  # type: ignore[arg-type]


def test_an_unknown_way_to_refuse_is_refused() -> None:
    world = PrivateWorld(**SMALL)
    object.__setattr__(world, "refuse", "sometimes")  # as an override without a type can
    with pytest.raises(ValueError, match="refuse must be always, never or when_told, got 'sometimes'"):
        world.__post_init__()
