"""Rankings: the choice repeated, against the closed forms of Plackett and Luce's model."""

import itertools
import math
from collections import Counter

import pytest
from alignlab_raters import Bradley, Panel, Rater

from alignlab.data.records import Prompt
from alignlab.reward import Candidates, Pair

PROMPT = Prompt.user("which ?")
COUNT = 4000
UTILITIES = (0.0, 2.0, 1.0)


def rater(name: str = "somebody", weight: float = 1.0) -> Rater:
    """Likes exclamation marks, `weight` reward units each."""
    return Rater(name, {"exclamations": weight})


def shown(*utilities: float) -> Candidates:
    """Answers of so many exclamation marks."""
    return Candidates(PROMPT, tuple(f"yes {i} " + "!" * int(u) for i, u in enumerate(utilities)))


def within(share: float, expected: float, errors: float = 3.0) -> bool:
    return abs(share - expected) <= errors * math.sqrt(expected * (1 - expected) / COUNT)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_first_places_are_a_softmax_of_utility_over_temperature(temperature: float) -> None:
    orders = Panel({"a": rater()}, temperature=temperature).rank([shown(*UTILITIES)] * COUNT, range(COUNT))
    weights = [math.exp(u / temperature) for u in UTILITIES]
    first = Counter(order.places[0] for order in orders)
    for answer, weight in enumerate(weights):
        assert within(first[answer] / COUNT, weight / sum(weights))


def test_each_order_comes_as_often_as_its_stated_probability() -> None:
    orders = Panel({"a": rater()}, position_bias=0.5, flip=0.2).rank([shown(*UTILITIES)] * COUNT, range(COUNT))
    stated = {order.places: order.probability for order in orders}
    assert stated.keys() == set(itertools.permutations(range(3)))
    assert sum(stated.values()) == pytest.approx(1.0, abs=1e-12)
    counted = Counter(order.places for order in orders)
    assert all(within(counted[places] / COUNT, p) for places, p in stated.items())


def test_the_probability_of_an_order_on_paper() -> None:
    """Best of three, then best of two, utilities 0, ln 2 and ln 3 at temperature 1: 3 / 6 and 2 / 3."""
    model = Bradley()
    utilities = [0.0, math.log(2), math.log(3)]
    assert model.probability_of((2, 1, 0), utilities) == pytest.approx(1 / 3, abs=1e-15)
    assert Bradley(flip=0.25).probability_of((2, 1, 0), utilities) == pytest.approx(
        0.75 / 3 + 0.25 * (1 / 6) * (2 / 5), abs=1e-15
    )


@pytest.mark.parametrize("model", [Bradley(), Bradley(0.5, position_bias=0.7, flip=0.1)])
@pytest.mark.parametrize("gap", [-800.0, -1.0, 0.0, 2.0, 800.0])
def test_a_ranking_of_two_is_a_choice(model: Bradley, gap: float) -> None:
    assert model.probability_of((0, 1), [gap, 0.0]) == pytest.approx(model.probability(gap), abs=1e-15)


def test_the_panel_states_the_same_of_two_answers_as_of_a_pair() -> None:
    panel = Panel({"a": rater()}, temperature=0.5, position_bias=0.3, flip=0.1)
    two = shown(1.0, 0.0)
    orders = panel.rank([two] * COUNT, range(COUNT))
    (choice,) = panel.compare([Pair(PROMPT, *two.answers)], [0])
    for order in orders:
        first = order.places == (0, 1)
        assert order.probability == pytest.approx(choice.probability if first else 1 - choice.probability, abs=1e-15)
    assert within(sum(o.places == (0, 1) for o in orders) / COUNT, choice.probability)


def test_without_noise_worth_naming_the_order_is_that_of_utility() -> None:
    (order,) = Panel({"a": rater()}, temperature=1e-3).rank([shown(*UTILITIES)], [7])
    assert order.places == (1, 2, 0) and order.probability == pytest.approx(1.0)


def test_a_ranking_depends_on_its_list_and_its_number_alone() -> None:
    panel = Panel({"a": rater("a"), "b": rater("b", -1.0)})
    lists = [shown(*UTILITIES), shown(1.0, 0.0), shown(0.0, 0.0, 0.0, 3.0)] * 3
    index = [3 * i + 1 for i in range(len(lists))]
    found = panel.rank(lists, index)
    backwards = panel.rank(lists[::-1], index[::-1])
    assert backwards[::-1] == found
    assert [o for shown_, i in zip(lists, index, strict=True) for o in panel.rank([shown_], [i])] == found
    assert [o.rater for o in found] == [panel.rater_of(i) for i in index]
    assert panel.rank([], []) == []
