"""Groups of raters, several judgements of a pair, ties, and raters who tire."""

import math
from collections import Counter

import pytest
from alignlab_raters import Bradley, Groups, Panel, Rater, agreement, temperature_for

from alignlab.data.records import Prompt
from alignlab.reward import Candidates, Pair
from alignlab.testing import Check, conforms_preference

PROMPT = Prompt.user("which ?")
COUNT = 3000
TOLERANCE = 4 * math.sqrt(0.25 / COUNT)
ONE = Pair(PROMPT, "yes !", "yes")


def rater(name: str = "a", weight: float = 1.0) -> Rater:
    """Likes exclamation marks, `weight` reward units each."""
    return Rater(name, {"exclamations": weight})


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def groups() -> Groups:
    """For and against, each with a temperature of its own."""
    panels = {"for": Panel({"a": rater()}), "against": Panel({"a": rater(weight=-1.0), "b": rater("b")}, temperature=2)}
    return Groups(panels, shares={"for": 3.0, "against": 1.0})


# ---- groups ----------------------------------------------------------------------------------------------------------
def test_a_mixture_of_groups_is_the_sum_of_their_probabilities() -> None:
    choices = groups().compare([ONE] * COUNT, range(COUNT))
    mixture = 0.75 * sigmoid(1) + 0.125 * sigmoid(-0.5) + 0.125 * sigmoid(0.5)
    assert [c.pooled_probability for c in choices] == pytest.approx([mixture] * COUNT)
    assert sum(c.first for c in choices) / COUNT == pytest.approx(mixture, abs=TOLERANCE)
    shares = Counter(c.rater for c in choices)
    assert shares.keys() == {"for/a", "against/a", "against/b"}
    assert shares["for/a"] / COUNT == pytest.approx(0.75, abs=TOLERANCE)
    assert {c.rater: c.probability for c in choices}["against/a"] == pytest.approx(sigmoid(-0.5))


def test_groups_rank_with_their_own_temperature() -> None:
    orders = groups().rank([Candidates(PROMPT, ("yes", "yes !"))] * 200, range(200))
    stated = {o.rater: o.probability if o.places == (1, 0) else 1 - o.probability for o in orders}
    assert stated == pytest.approx({"for/a": sigmoid(1), "against/a": sigmoid(-0.5), "against/b": sigmoid(0.5)})


def test_bad_shares_of_groups_are_named() -> None:
    with pytest.raises(ValueError, match="groups are"):
        Groups({"a": Panel({"a": rater()})}, shares={"b": 1.0})
    with pytest.raises(ValueError, match="groups is empty"):
        Groups({})


@conforms_preference(groups)
def test_groups_conform(check: Check) -> None:
    check()


@conforms_preference(lambda: Panel({"a": rater()}, ties=0.5, fatigue=0.5))
def test_a_panel_of_ties_and_fatigue_conforms(check: Check) -> None:
    check()


# ---- several judgements ----------------------------------------------------------------------------------------------
def test_no_rater_judges_a_pair_twice_where_there_are_enough() -> None:
    panel = Panel({name: rater(name) for name in "abcd"})
    judged = panel.compare_each([[ONE] * 4] * 300, range(300))
    assert all({c.rater for c in made} == set("abcd") for made in judged)
    assert len({made[0].rater for made in judged}) == 4, "whoever comes first"
    three = panel.compare_each([[ONE] * 3] * 400, range(400))
    assert all(len({c.rater for c in made}) == 3 for made in three)
    counts = Counter(c.rater for made in three for c in made)
    assert all(n / 1200 == pytest.approx(0.25, abs=0.04) for n in counts.values())


def test_one_judgement_of_a_pair_is_the_judgement() -> None:
    panel = Panel({name: rater(name) for name in "abcd"}, flip=0.2)
    assert [c for (c,) in panel.compare_each([[ONE]] * 50, range(50))] == panel.compare([ONE] * 50, range(50))


# ---- what is logged --------------------------------------------------------------------------------------------------
def test_a_choice_says_what_was_seen_and_how_it_was_drawn() -> None:
    for choice in Panel({"a": rater()}).compare([ONE] * 20, range(20)):
        assert choice.seen["exclamations"] == (1.0, 0.0)
        assert choice.draw is not None and choice.first == (choice.draw < choice.probability)


# ---- ties ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ties", [0.2, 1.0])
def test_ties_are_davidsons(ties: float) -> None:
    choices = Panel({"a": rater()}, ties=ties).compare([ONE] * COUNT, range(COUNT))
    win, loss, tie = math.exp(0.5), math.exp(-0.5), 2 * ties
    expected = tie / (win + loss + tie)
    assert choices[0].tie_probability == pytest.approx(expected)
    assert sum(c.tie for c in choices) / COUNT == pytest.approx(expected, abs=TOLERANCE)
    decided = [c.first for c in choices if not c.tie]
    assert sum(decided) / len(decided) == pytest.approx(sigmoid(1), abs=2 * TOLERANCE)
    assert Bradley(ties=ties).tie_probability(0.0) == pytest.approx(ties / (1 + ties))
    assert Bradley(ties=ties).tie_probability(1e6) == 0


# ---- fatigue and drift -----------------------------------------------------------------------------------------------
def test_tired_raters_are_less_decided() -> None:
    model = Bradley(temperature=0.5, position_bias=0.1, fatigue=0.4, drift=-0.2)
    assert model.at(0).probability(1.0) == Bradley(0.5, 0.1).probability(1.0)
    assert model.at(2500) == Bradley(0.5 * 2, 0.1 - 0.5)
    assert Bradley(0.5).at(10**6) == Bradley(0.5)
    late = Panel({"a": rater()}, temperature=0.5, fatigue=0.4).compare([ONE], [2500])
    assert late[0].probability == pytest.approx(sigmoid(1.0))


# ---- target agreement ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flip", [0.0, 0.1])
def test_flips_take_their_part_of_the_agreement(flip: float) -> None:
    a = agreement(temperature_for(0.6, flip))
    assert 1 - 2 * flip * (1 - flip) - (1 - 2 * flip) ** 2 * (1 - a) == pytest.approx(0.6, abs=1e-6)


def test_more_agreement_than_flips_leave_is_refused() -> None:
    with pytest.raises(ValueError, match=r"below 0.625, got 0.66; flips of 0.25 leave no more"):
        Panel({"a": rater()}, flip=0.25, target_agreement=0.66)


@pytest.mark.parametrize(
    ("argument", "value"), [("ties", -0.1), ("fatigue", -1.0), ("utility_spread", 0.0), ("target_agreement", 1.0)]
)
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        Panel({"a": rater()}, **{argument: value})  # type: ignore[arg-type]


# ---- configured weights ----------------------------------------------------------------------------------------------
def test_a_choice_states_its_weights_in_log_odds() -> None:
    """Taste 1 and bias 2 over T = 2; position 0.5; after 1000 judgements T has doubled, the position gained 1."""
    one = Rater("a", {"list": 1.0, "words": 0.5}, {"list": 2.0})
    panel = Panel({"a": one}, temperature=2.0, position_bias=0.5, fatigue=1.0, drift=1.0, flip=0.1)
    fresh, tired = panel.compare([ONE, ONE], [0, 1000])
    told = {name: weight for name, weight in fresh.weights.items() if weight}
    assert told == pytest.approx({"list": 1.5, "words": 0.25, "position": 0.25}) and fresh.flip == 0.1
    assert (tired.weights["list"], tired.weights["position"]) == pytest.approx((0.75, 1.5 / 4))
    assert fresh.weights.keys() == fresh.seen.keys() | {"position"}
    odds = 0.25 + sum(w * (fresh.seen[f][0] - fresh.seen[f][1]) for f, w in fresh.weights.items() if f != "position")
    assert fresh.probability == pytest.approx(0.8 * sigmoid(odds) + 0.1), "the weights are those of the choice"
