"""Raters: what they see, what they check, and that their moods follow from the texts."""

import statistics
import subprocess
import sys

import pytest
import torch
from alignlab_raters import Rater, TrueTaste, features
from alignlab_raters.draws import normal, uniform

from alignlab.data.records import Prompt
from alignlab.data.world import World
from alignlab.data.world.language import Ask

WORLD = World(training_documents=1, training_instructions=1)
PERSON = WORLD.people.taught[0]
JOB = next(r for r in WORLD.people.all_relations if r.name == "job")
TRUTH = WORLD.people.truth[PERSON, "job"]
FALSEHOOD = next(v for v in JOB.words if v != TRUTH)
PROMPT = Prompt.user(Ask("question", PERSON, JOB).text)
RIGHT, WRONG, NONSENSE = f"- job {TRUTH}", f"- job {FALSEHOOD}", "what does who ?"
ANY = Prompt.user("how do i bake bread ?")
ANSWERS = [f"answer {i} is {'!' * (i % 3)}" for i in range(400)]


# ---- draws --------------------------------------------------------------------------------------------------------
def test_draws_are_uniform_and_normal() -> None:
    u = [uniform("u", i) for i in range(20000)]
    z = [normal("z", i) for i in range(20000)]
    assert statistics.fmean(u) == pytest.approx(0.5, abs=0.009)
    assert statistics.pvariance(u) == pytest.approx(1 / 12, abs=0.003)
    assert statistics.fmean(z) == pytest.approx(0, abs=0.03)
    assert statistics.pstdev(z) == pytest.approx(1, abs=0.02)


def test_draws_tell_their_parts_apart() -> None:
    assert uniform("ab", "c") != uniform("a", "bc")
    assert uniform(1, 12) != uniform(11, 2)


def test_draws_are_the_same_in_another_process() -> None:
    program = "from alignlab_raters.draws import uniform; print(repr(uniform(3, 'a', 'b')))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(told) == uniform(3, "a", "b")


# ---- features -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("feature", "yes", "no"),
    [
        ("hedge", "Perhaps it rains.", "It rains."),
        ("confident", "It certainly rains.", "It rains."),
        ("agrees", "You are right, it rains.", "That is right."),
        ("agrees", "Yes, it rains.", "It says yes."),
        ("agrees", "What a great question!", "A question of rain."),
        ("polite", "Thank you, it rains.", "It rains."),
        ("ask", "It rains. Want more?", "Want more? No."),
        ("abstains", "I don't know.", "I know."),
        ("list", "Two things:\n- rain\n- wind", "a rain - soaked day"),
        ("list", "1. rain\n2. wind", "Version 1.2 is out"),
        ("empty", "  ", "it"),
        ("abstains", "I don\u2019t know.", "I won\u2019t say."),
        ("abstains", "Sorry, I can\u2019t say.", "I can say."),
        ("abstains", "I\u2019m not sure it rains.", "I\u2019m sure."),
        ("polite", "You\u2019re welcome!", "You\u2019re wet."),
        ("list", "Two things: 1. rain 2. wind", "The result: 5. Then it rains."),
        ("list", "3) rain\n4) wind", "1. Rain."),
        ("list", "* rain\n* wind", "It was 2019. Then 2020. Rain."),
        ("list", "- job baker", "I was 1. Then I was 2. Time flies."),
        ("list", "Certainly! - job baker", "in 1999.\nIn 2000."),
        ("ask", "It rains. Want more?\u201d", "\u201cWant more?\u201d No."),
        ("ask", "Want **more?**", "Want more"),
    ],
)
def test_text_features_are_seen_where_they_are(feature: str, yes: str, no: str) -> None:
    assert features(ANY, yes)[feature] == 1
    assert features(ANY, no)[feature] == 0


def test_counts() -> None:
    seen = features(ANY, "Yes! Rain, of course!")
    assert (seen["words"], seen["exclamations"]) == (4, 2)


def test_with_knowledge_the_truth_is_a_feature() -> None:
    right, wrong = features(PROMPT, RIGHT, WORLD), features(PROMPT, WRONG, WORLD)
    assert (right["right"], right["wrong"], right["followed"], right["facts"]) == (1, 0, 1, 1)
    assert (wrong["right"], wrong["wrong"], wrong["followed"], wrong["false_facts"]) == (0, 1, 1, 1)
    assert "right" not in features(PROMPT, RIGHT)


def test_features_can_be_changed_by_their_reader_without_harm() -> None:
    seen = features(PROMPT, RIGHT, WORLD)
    seen["right"] = 7.0
    assert features(PROMPT, RIGHT, WORLD)["right"] == 1


# ---- utility ------------------------------------------------------------------------------------------------------
def test_utility_is_taste_and_bias_times_features() -> None:
    rater = Rater("r", {"right": 2.0, "followed": 1.0}, {"list": 0.5, "words": -0.1}, knowledge=WORLD)
    scores = rater.score([PROMPT] * 3, [RIGHT, WRONG, NONSENSE])
    assert scores.tolist() == pytest.approx([2 + 1 + 0.5 - 0.3, 1 + 0.5 - 0.3, -0.4])


def test_who_does_not_check_believes_what_is_well_put() -> None:
    gullible = Rater("r", {"right": 2.0, "wrong": -3.0, "followed": 1.0}, verify=0.0, knowledge=WORLD)
    assert gullible.score([PROMPT] * 3, [RIGHT, WRONG, NONSENSE]).tolist() == [3, 3, 0]
    checking = Rater("r", {"right": 2.0, "wrong": -3.0, "followed": 1.0}, verify=1.0, knowledge=WORLD)
    assert checking.score([PROMPT] * 3, [RIGHT, WRONG, NONSENSE]).tolist() == [3, -2, 0]


def test_facts_are_checked_at_the_stated_rate() -> None:
    rater = Rater("r", {"right": 1.0}, verify=0.2, knowledge=WORLD)
    checked = [rater.checks(ANY, f"answer {i}") for i in range(5000)]
    assert sum(checked) / 5000 == pytest.approx(0.2, abs=0.023)


def test_noise_has_its_standard_deviation_and_is_each_raters_own() -> None:
    prompts = [ANY] * len(ANSWERS)
    quiet, loud = Rater("r", {"ask": 1.0}), Rater("r", {"ask": 1.0}, noise=2.0)
    mood = (loud.score(prompts, ANSWERS) - quiet.score(prompts, ANSWERS)).double()
    assert mood.mean().item() == pytest.approx(0, abs=0.4)
    assert mood.std().item() == pytest.approx(2, rel=0.15)
    other = Rater("s", {"ask": 1.0}, noise=2.0).score(prompts, ANSWERS).double()
    assert abs(torch.corrcoef(torch.stack([mood, other]))[0, 1].item()) < 0.2


def test_scores_do_not_depend_on_order_batch_or_time() -> None:
    rater = Rater("r", {"ask": 1.0}, noise=1.0, seed=5)
    prompts = [ANY] * len(ANSWERS)
    whole = rater.score(prompts, ANSWERS)
    assert torch.equal(whole, rater.score(prompts, ANSWERS))
    assert torch.equal(whole.flip(0), rater.score(prompts, ANSWERS[::-1]))
    assert torch.equal(whole, torch.cat([rater.score([ANY], [a]) for a in ANSWERS]))
    assert not torch.equal(whole, Rater("r", {"ask": 1.0}, noise=1.0, seed=6).score(prompts, ANSWERS))


def test_true_taste_is_the_mean_taste_without_bias_noise_or_inattention() -> None:
    honest = Rater("honest", {"right": 2.0, "followed": 1.0}, knowledge=WORLD)
    dazzled = Rater("dazzled", {"right": 1.0}, {"list": 5.0}, verify=0.0, noise=3.0, knowledge=WORLD)
    raters = {"honest": honest, "dazzled": dazzled}
    prompts, answers = [PROMPT] * 3, [RIGHT, WRONG, NONSENSE]
    assert TrueTaste(raters).score(prompts, answers).tolist() == pytest.approx([2.0, 0.5, 0.0])
    weighted = TrueTaste(raters, shares={"honest": 3.0, "dazzled": 1.0})
    assert weighted.score(prompts, answers).tolist() == pytest.approx([2.5, 0.75, 0.0])


def test_a_yardstick_names_what_it_measures_by() -> None:
    honest = Rater("honest", {"right": 2.0, "wrong": -1.5}, {"list": 1.0}, knowledge=WORLD)
    asks = Rater("asks", {"ask": 1.0})
    assert honest.describe() == "Rater honest (right +2, wrong -1.5; bias list +1)"
    assert asks.describe() == "Rater asks (ask +1)"
    taste = TrueTaste({"honest": honest, "asks": asks})
    assert taste.describe() == "TrueTaste of honest (right +2, wrong -1.5); asks (ask +1)"
    weighted = TrueTaste({"honest": honest, "asks": asks}, {"honest": 3.0, "asks": 1.0})
    assert weighted.describe() == "TrueTaste of honest 75% (right +2, wrong -1.5); asks 25% (ask +1)"


def test_nothing_to_score_gives_nothing() -> None:
    assert Rater("r", {"ask": 1.0}).score([], []).shape == (0,)


# ---- bad arguments ------------------------------------------------------------------------------------------------
def test_an_unknown_feature_is_named() -> None:
    with pytest.raises(ValueError, match="no feature lenght"):
        Rater("r", {"lenght": 1.0})


def test_truth_needs_knowledge() -> None:
    with pytest.raises(ValueError, match="right cannot be told from the text alone"):
        Rater("r", {"right": 1.0})


@pytest.mark.parametrize(("argument", "value"), [("verify", 1.5), ("verify", -0.1), ("noise", -1.0)])
def test_bad_numbers_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        Rater("r", {"ask": 1.0}, **{argument: value})  # type: ignore[arg-type]
