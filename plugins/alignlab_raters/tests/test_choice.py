"""Choice: frequencies against closed forms."""

import math

import pytest
from alignlab_raters import Bradley, Panel, Rater, agreement, temperature_for

from alignlab.data.records import Prompt
from alignlab.reward import Pair

PROMPT = Prompt.user("which ?")
COUNT = 3000
TOLERANCE = 4 * math.sqrt(0.25 / COUNT)


def rater(weight: float = 1.0, name: str = "somebody") -> Rater:
    """Likes exclamation marks, `weight` reward units each."""
    return Rater(name, {"exclamations": weight})


def pair(gap: int) -> Pair:
    """Answers that differ by `gap` exclamation marks."""
    return Pair(PROMPT, "yes " + "!" * max(0, gap), "yes " + "!" * max(0, -gap))


def frequency(panel: Panel, judged: Pair) -> float:
    choices = panel.compare([judged] * COUNT, range(COUNT))
    return sum(c.first for c in choices) / COUNT


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(("gap", "temperature"), [(0, 1.0), (1, 1.0), (-2, 1.0), (1, 0.5), (2, 4.0)])
def test_choices_fall_with_bradley_and_terrys_frequencies(gap: int, temperature: float) -> None:
    panel = Panel({"a": rater()}, temperature=temperature)
    expected = sigmoid(gap / temperature)
    assert frequency(panel, pair(gap)) == pytest.approx(expected, abs=TOLERANCE)
    assert panel.compare([pair(gap)], [0])[0].probability == pytest.approx(expected)


@pytest.mark.parametrize("bias", [0.5, -1.0])
def test_position_bias_is_reward_units_for_what_comes_first(bias: float) -> None:
    panel = Panel({"a": rater()}, position_bias=bias, temperature=2.0)
    assert frequency(panel, pair(0)) == pytest.approx(sigmoid(bias / 2), abs=TOLERANCE)
    assert panel.probability("a", pair(1)) == pytest.approx(sigmoid((1 + bias) / 2))


@pytest.mark.parametrize("flip", [0.1, 0.25, 0.5])
def test_flips_mix_with_the_opposite(flip: float) -> None:
    p = sigmoid(2)
    expected = (1 - flip) * p + flip * (1 - p)
    panel = Panel({"a": rater()}, flip=flip)
    assert panel.probability("a", pair(2)) == pytest.approx(expected)
    assert frequency(panel, pair(2)) == pytest.approx(expected, abs=TOLERANCE)


def test_extreme_gaps_do_not_overflow() -> None:
    model = Bradley(temperature=1e-3)
    assert (model.probability(1e6), model.probability(-1e6)) == (1.0, 0.0)


@pytest.mark.parametrize(("temperature", "expected"), [(0.25, 0.866), (0.5, 0.760), (1.0, 0.637), (2.0, 0.551)])
def test_temperature_sets_how_often_raters_of_like_mind_agree(temperature: float, expected: float) -> None:
    assert agreement(temperature) == pytest.approx(expected, abs=1e-3)


def test_agreement_tends_to_its_limits() -> None:
    assert agreement(1e-4) == pytest.approx(1, abs=1e-3)
    assert agreement(1e4) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("target", [0.55, 0.66, 0.8, 0.95])
def test_temperature_for_inverts_agreement(target: float) -> None:
    assert agreement(temperature_for(target)) == pytest.approx(target, abs=1e-6)


@pytest.mark.parametrize("target", [0.5, 1.0, 0.3])
def test_agreement_of_chance_or_certainty_has_no_temperature(target: float) -> None:
    with pytest.raises(ValueError, match="target_agreement"):
        temperature_for(target)


@pytest.mark.parametrize(("argument", "value"), [("temperature", 0.0), ("flip", 0.6), ("flip", -0.1)])
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        Panel({"a": rater()}, **{argument: value})  # type: ignore[arg-type]


# ---- the panel ----------------------------------------------------------------------------------------------------
def test_raters_judge_in_their_shares_and_by_their_own_taste() -> None:
    panel = Panel({"for": rater(2.0, "for"), "against": rater(-2.0, "against")}, shares={"for": 3, "against": 1})
    choices = panel.compare([pair(1)] * COUNT, range(COUNT))
    assert sum(c.rater == "for" for c in choices) / COUNT == pytest.approx(0.75, abs=TOLERANCE)
    assert {c.rater: c.probability for c in choices} == pytest.approx({"for": sigmoid(2), "against": sigmoid(-2)})
    mixture = 0.75 * sigmoid(2) + 0.25 * sigmoid(-2)
    assert sum(c.first for c in choices) / COUNT == pytest.approx(mixture, abs=TOLERANCE)
    assert [c.pooled_probability for c in choices] == pytest.approx([mixture] * COUNT), "before it is known who judges"


def test_a_judgement_depends_on_its_number_and_texts_alone() -> None:
    panel = Panel({"a": rater(1.0, "a"), "b": rater(-1.0, "b")}, seed=3)
    pairs = [pair(i % 5 - 2) for i in range(100)]
    index = list(range(1000, 1100))
    whole = panel.compare(pairs, index)
    one_by_one = [panel.compare([p], [i])[0] for p, i in zip(pairs, index, strict=True)]
    backwards = panel.compare(pairs[::-1], index[::-1])[::-1]
    assert whole == one_by_one == backwards
    assert whole != Panel(panel.raters, seed=4).compare(pairs, index)


def test_shares_must_name_the_raters() -> None:
    with pytest.raises(ValueError, match="name the same"):
        Panel({"a": rater()}, shares={"b": 1.0})
    with pytest.raises(ValueError, match="raters is empty"):
        Panel({})
    with pytest.raises(ValueError, match="not all 0"):
        Panel({"a": rater()}, shares={"a": 0.0})
