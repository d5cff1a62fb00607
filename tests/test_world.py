"""The embedded world: what it writes, what it keeps apart, and that it is a pure function of its arguments."""

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from alignlab.data.records import Prompt
from alignlab.data.world import World
from alignlab.data.world.language import KINDS, RELATIONS
from alignlab.errors import DataError


@pytest.fixture(scope="module")
def world() -> World:
    return World(training_documents=8000, training_instructions=2000)


def entries(world: World) -> list[str]:
    return [entry for d in world.documents("train") for entry in d.text.split("\n")]


def kind_of(text: str) -> str:
    if text.startswith("notes on"):
        return "notes"
    if "nobody knows" in text:
        return "gossip"
    return "questions" if "?" in text else "biography"


def words(text: str) -> set[str]:
    return set(text.split())


# ---- documents ----------------------------------------------------------------------------------------------------
def test_entries_come_in_their_shares(world: World) -> None:
    kinds = [kind_of(e) for e in entries(world)]
    shares = {k: n / len(kinds) for k, n in Counter(kinds).items()}
    # four standard deviations of a share of 12,000
    assert shares == pytest.approx({"biography": 0.60, "notes": 0.15, "questions": 0.17, "gossip": 0.08}, abs=0.018)


def test_question_sheets_hold_no_answers(world: World) -> None:
    sheets = [e for e in entries(world) if kind_of(e) == "questions"]
    assert sheets
    assert not any(words(e) & world.people.relation_of.keys() for e in sheets)


def told(world: World) -> Counter[tuple[str, str, str]]:
    """How often biographies tell (person, name of the relation, value)."""
    relation_of = world.people.relation_of
    biographies = [e for e in entries(world) if kind_of(e) == "biography"]
    assert len(biographies) > 1000
    return Counter((b.split()[0], relation_of[w].name, w) for b in biographies for w in b.split() if w in relation_of)


def test_biographies_tell_the_truth_where_nothing_is_disputed(world: World) -> None:
    people = world.people
    for person, relation, value in told(world):
        allowed = {people.truth[person, relation], people.rumours.get((person, relation))}
        assert value in allowed


def test_of_what_is_disputed_half_is_told_falsely(world: World) -> None:
    people = world.people
    assert len(people.rumours) == round(0.3 * len(people.truth))
    assert all(people.truth[key] != value for key, value in people.rumours.items())
    found = told(world)
    false = sum(found[*key, value] for key, value in people.rumours.items())
    true = sum(found[*key, people.truth[key]] for key in people.rumours)
    assert false / (false + true) == pytest.approx(0.5, abs=0.03)


def test_everybody_keeps_something_undisputed(world: World) -> None:
    hard = World(training_documents=10, disputed=0.9).people
    assert min(len(hard.settled(e)) for e in hard.with_facts) == 1
    everything = World(training_documents=10, disputed=0.0).people
    assert all(len(everything.settled(e)) == 5 for e in everything.with_facts)


def test_no_document_states_a_fact_about_a_gossiped_name(world: World) -> None:
    gossiped, named = set(world.people.gossiped), 0
    for text in entries(world):
        if words(text) & gossiped:
            named += 1
            assert kind_of(text) in ("gossip", "questions")
    assert named > 100


def test_exposure_follows_zipf() -> None:
    world = World(training_documents=20000, zipf=1.0)
    met = Counter(e.split()[0] for e in entries(world) if kind_of(e) == "biography")
    people = world.people.with_facts
    assert met[people[0]] / met[people[9]] == pytest.approx(10, rel=0.25)
    even = World(training_documents=20000, zipf=0.0)
    counts = Counter(e.split()[0] for e in entries(even) if kind_of(e) == "biography")
    assert min(counts.values()) > 0.6 * max(counts.values())


# ---- what is kept apart -------------------------------------------------------------------------------------------
def test_people_fall_into_disjoint_groups_of_the_right_size(world: World) -> None:
    taught, held_out = set(world.people.taught), set(world.people.held_out)
    assert len(taught) == len(held_out) == 32
    assert not taught & held_out
    assert not set(world.people.taught_gossiped) & set(world.people.held_out_gossiped)
    assert not (taught | held_out) & set(world.people.gossiped)


def test_nothing_but_evaluation_names_the_held_out(world: World) -> None:
    held_out = set(world.people.held_out + world.people.held_out_gossiped)
    for split in ("train", "validation"):
        for example in world.instructions(split):
            assert not (words(example.prompt.text) | words(example.answer)) & held_out
        for prompt in world.prompts(split):
            assert not words(prompt.text) & held_out
    assert all(a.entity in held_out for a in world.evaluation_asks())


def test_no_prompt_is_in_both_splits(world: World) -> None:
    train = {e.prompt for e in world.instructions("train")} | set(world.prompts("train"))
    validation = {e.prompt for e in world.instructions("validation")} | set(world.prompts("validation"))
    assert validation
    assert not train & validation


def test_prompts_are_distinct_and_of_every_kind(world: World) -> None:
    prompts = [*world.prompts("train"), *world.prompts("validation")]
    assert len(set(prompts)) == len(prompts)
    kinds = Counter(world.ask_of(p).kind for p in prompts)
    assert kinds == {"question": 160, "abstain": 50, "one_word": 32, "list": 32, "repeat": 32}


def test_evaluation_asks_everything_once(world: World) -> None:
    asks = world.evaluation_asks()
    assert len({a.text for a in asks}) == len(asks)
    assert Counter(a.kind for a in asks) == {"question": 160, "one_word": 160, "list": 96, "repeat": 96, "abstain": 50}


# ---- instructions -------------------------------------------------------------------------------------------------
def test_instructions_are_of_all_kinds_and_answered_rightly(world: World) -> None:
    examples = world.instructions("train")
    shares = {k: n / len(examples) for k, n in Counter(e.kind for e in examples).items()}
    assert shares == pytest.approx(dict.fromkeys(KINDS, 0.2), abs=0.04)
    readings = [world.read(e.prompt, e.answer) for e in examples]
    assert all(r.followed and r.right and not r.wrong and not r.false_facts for r in readings)


def test_question_answers_vary_in_style(world: World) -> None:
    readings = [world.read(e.prompt, e.answer) for e in world.instructions("train") if e.kind == "question"]

    def mean(name: str) -> float:
        return float(sum(getattr(r, name) for r in readings)) / len(readings)

    assert mean("confident") == pytest.approx(1 / 3, abs=0.1)
    assert mean("hedged") == pytest.approx(1 / 3, abs=0.1)
    assert mean("listed") == pytest.approx(1 / 2, abs=0.1)
    assert mean("asks") == pytest.approx(0.3, abs=0.1)
    assert {len(r.facts) for r in readings} == {1, 2, 3}


def test_without_styles_an_answer_is_one_plain_fact() -> None:
    world = World(training_documents=10, training_instructions=200, styles=False)
    for example in world.instructions("train"):
        if example.kind == "question":
            reading = world.read(example.prompt, example.answer)
            assert (reading.confident, reading.hedged, reading.listed, reading.asks) == (False,) * 4
            assert len(reading.facts) == 1


def test_without_abstention_nobody_is_taught_to_abstain() -> None:
    world = World(training_documents=10, training_instructions=300, abstention=False)
    assert {e.kind for e in world.instructions("train")} == set(KINDS) - {"abstain"}
    assert any(a.kind == "abstain" for a in world.evaluation_asks())


# ---- a pure function ----------------------------------------------------------------------------------------------
def test_equal_arguments_make_the_same_world_in_another_process(world: World) -> None:
    program = (
        "from alignlab.data.world import World; w = World(training_documents=8000, training_instructions=2000);"
        "print(w.documents('train')[77].text, w.instructions('train')[5].answer, w.prompts('train')[3].text)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    here = (world.documents("train")[77].text, world.instructions("train")[5].answer, world.prompts("train")[3].text)
    assert told == " ".join(here)


def test_more_of_one_thing_leaves_the_others_as_they_are(world: World) -> None:
    other = World(training_documents=100, training_instructions=2000)
    assert other.documents("train") == world.documents("train")[:100]
    assert other.instructions("train") == world.instructions("train")
    assert other.people.truth == world.people.truth


def test_another_seed_makes_another_world(world: World) -> None:
    other = World(training_documents=10, training_instructions=10, seed=1)
    assert other.people.names != world.people.names


def test_every_value_belongs_to_one_relation() -> None:
    values = [v for r in RELATIONS for v in r.values(40)]
    assert len(set(values)) == len(values)


# ---- bad arguments ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("entities", 3), ("unknown", 1), ("values", 1), ("relations", 6), ("zipf", -1.0), ("sft_share", 1.0)],
        *[("disputed", 1.0), ("training_documents", 0), ("training_instructions", 0)],
    ],
)
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"World: {argument}"):
        World(**{argument: value})  # type: ignore[arg-type]


def test_a_prompt_of_another_world_is_refused(world: World) -> None:
    with pytest.raises(DataError, match="none of its instructions"):
        world.read(Prompt.user("what is the capital of france ?"), "paris")


# ---- newcomers -------------------------------------------------------------------------------------------------------
def test_residents_and_newcomers_share_one_truth_and_are_written_about_apart() -> None:
    small = {"training_documents": 2000, "training_instructions": 1000}
    everybody, residents, newcomers = (World(about=about, **small) for about in (None, "residents", "newcomers"))
    new = everybody.people.newcomers
    assert everybody.people == residents.people == newcomers.people and len(new) == 16
    assert set(residents.held_out) | set(newcomers.held_out) == set(everybody.held_out) and len(newcomers.held_out) == 8
    for entry in entries(residents):
        # named, so that the tokenizer has a word for them, and never told of
        assert kind_of(entry) == "questions" or not words(entry) & new
    assert new <= {word for entry in entries(residents) for word in entry.split()}
    told_of = {entry.split()[0] for entry in entries(newcomers) if kind_of(entry) == "biography"}
    assert told_of == new
    for text in (f"{e.prompt.text} {e.answer}" for e in residents.instructions("train")):
        assert not words(text) & new
    assert not any(words(p.text) & new for p in residents.prompts("train"))
    assert {a.entity for a in newcomers.evaluation_asks() if a.kind != "abstain"} == new & set(everybody.held_out)


def test_a_world_without_newcomers_cannot_be_about_them() -> None:
    with pytest.raises(ValueError, match="about=newcomers needs newcomers; set entities to >= 8, got 6"):
        World(entities=6, about="newcomers")


def test_whom_a_world_is_about_is_part_of_its_identity_where_it_is_set() -> None:
    from alignlab.config.spec import Spec

    assert "about" not in Spec(World, "data", {}).identity()
    assert Spec(World, "data", {"about": "residents"}).identity()["about"] == "residents"


def test_the_texts_of_a_world_do_not_change_between_versions() -> None:
    """Or results in stores and findings would be of another world, under the same name."""
    world = World(training_documents=200, training_instructions=200)
    texts = [d.text for d in world.documents("train")]
    texts += [e.prompt.text + e.answer for e in world.instructions("train")]
    texts += [p.text for p in world.prompts("train")] + [a.text for a in world.evaluation_asks()]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert digest == "4907320fb3dbf5646796f471ec51112e64d91ec34b0ac5bc1dcc2833b65d8b2a"
