"""Every bias that can be configured is measured back from the choices alone, within its 95 % interval.

Answers are made of independent features; a logistic regression of the choices on the differences of the features, the
constant being the position, finds `weight / T` for each, and flips and fatigue by one number more. Fixed seeds: an
interval holds always or never.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from alignlab_raters import Groups, Panel, Rater, features, temperature_for

from alignlab.data.records import Prompt
from alignlab.metrics import wilson
from alignlab.reward import Choice, Pair

Array = npt.NDArray[np.float64]
PROMPT = Prompt.user("which ?")
COUNT = 4000
SEED = 1
"""With 0, by chance, `polite` is 3.2 standard errors off; of 24 seeds, 97 % of all intervals hold."""
Z = 1.96
WEIGHTS = {"words": 0.1, "list": 1.0, "hedge": -0.8, "confident": 1.2, "polite": 0.7, "ask": 0.8, "agrees": 1.5}
FEATURES = tuple(WEIGHTS)
STYLES = ("\n- a point", "perhaps", "certainly", "thank you")
OPENINGS, ENDS = ("", "you are right"), (".", "?")


def answers(count: int, seed: int) -> list[str]:
    """Texts in which every feature is there or not, independently, and lengths differ."""
    draws = np.random.default_rng(seed)
    found = []
    for number in range(count):
        words = " ".join(["word"] * int(draws.integers(1, 30)))
        styles = " ".join(style for style in STYLES[1:] if draws.random() < 0.5)
        listed = STYLES[0] if draws.random() < 0.5 else ""
        opening, end = OPENINGS[draws.integers(2)], ENDS[draws.integers(2)]
        found.append(f"{opening} answer {number} {words} {styles} {listed} {end}")
    return found


PAIRS = [Pair(PROMPT, a, b) for a, b in zip(answers(COUNT, 0), answers(COUNT, 1), strict=True)]
GAPS: Array = np.array(
    [[features(PROMPT, p.first)[name] - features(PROMPT, p.second)[name] for name in FEATURES] + [1.0] for p in PAIRS]
)
"""Difference of every feature, and the constant."""


@dataclass(frozen=True)
class Fit:
    """Estimates with their standard errors."""

    values: Array
    errors: Array

    def holds(self, place: int, truth: float) -> bool:
        return abs(self.values[place] - truth) <= Z * self.errors[place]


def newton(gaps: Array, first: Array) -> Fit:
    """Logistic regression."""
    beta = np.zeros(gaps.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-gaps @ beta))
        hessian = gaps.T @ (gaps * (p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(hessian, gaps.T @ (first - p))
    return Fit(beta, np.sqrt(np.diag(np.linalg.inv(hessian))))


def judged(panel: Panel | Groups) -> list[Choice]:
    return panel.compare(PAIRS, range(COUNT))


def firsts(choices: list[Choice]) -> Array:
    return np.array([float(c.first) for c in choices])


def fitted(panel: Panel) -> Fit:
    return newton(GAPS, firsts(judged(panel)))


# ---- weights, temperature, position ----------------------------------------------------------------------------------
@functools.cache
def all_weights() -> Fit:
    taste = {name: WEIGHTS[name] for name in ("polite", "ask")}
    bias = {name: weight for name, weight in WEIGHTS.items() if name not in taste}
    return fitted(Panel({"r": Rater("r", taste, bias)}, temperature=2.0, seed=SEED))


@pytest.mark.parametrize("feature", FEATURES)
def test_the_weight_of_a_feature_is_found_back_over_the_temperature(feature: str) -> None:
    found, place = all_weights(), FEATURES.index(feature)
    assert found.holds(place, WEIGHTS[feature] / 2.0)
    assert abs(found.values[place]) > 4 * found.errors[place], "it can be told from 0"


@pytest.mark.parametrize("bias", [-0.6, 1.0])
def test_position_bias_is_found_back(bias: float) -> None:
    found = fitted(Panel({"r": Rater("r", {"polite": 0.5})}, temperature=0.8, position_bias=bias))
    assert found.holds(len(FEATURES), bias / 0.8)


# ---- flips, attention, agreement, ties, groups -----------------------------------------------------------------------
@pytest.mark.parametrize("flip", [0.1, 0.25])
def test_flips_are_found_back(flip: float) -> None:
    """The likelihood's maximum over the flips, with the weight free; its interval where it falls by 1.92."""
    first = firsts(judged(Panel({"r": Rater("r", {"words": 0.5})}, flip=flip)))
    gap = GAPS[:, 0]

    def best(e: float) -> float:
        logits = np.arange(0.2, 1.0, 0.02)[:, None] * gap
        p = (1 - 2 * e) / (1 + np.exp(-logits)) + e
        return float((first * np.log(p) + (1 - first) * np.log(1 - p)).sum(1).max())

    grid = np.arange(0.01, 0.45, 0.005)
    values = np.array([best(e) for e in grid])
    inside = grid[values > values.max() - 1.92]
    assert inside.min() - 0.0025 <= flip <= inside.max() + 0.0025
    assert inside.max() - inside.min() < 0.06


@pytest.mark.parametrize(
    ("target", "flip"),
    [pytest.param(0.6, 0.0, marks=pytest.mark.slow), pytest.param(0.8, 0.0, marks=pytest.mark.slow), (0.66, 0.1)],
)
def test_target_agreement_is_found_back(target: float, flip: float) -> None:
    """Two raters who share utilities that are normal: the noise of one name is the same for both."""
    spread = 3.0
    same = {name: Rater("same", {"empty": 0.0}, noise=spread) for name in ("one", "other")}
    panel = Panel(same, target_agreement=target, utility_spread=spread, flip=flip)
    both = panel.compare_each([[Pair(PROMPT, f"a {i}", f"b {i}")] * 2 for i in range(COUNT)], range(COUNT))
    assert all(a.rater != b.rater for a, b in both)
    low, high = wilson(sum(a.first == b.first for a, b in both) / COUNT, COUNT)
    assert low <= target <= high


def test_the_temperature_of_a_target_is_that_of_its_table() -> None:
    assert temperature_for(0.760) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("ties", [0.1, 0.5])
def test_ties_are_found_back(ties: float) -> None:
    """Of equally good answers: the share is ties / (1 + ties)."""
    made = Panel({"r": Rater("r", {"empty": 1.0})}, ties=ties).compare([Pair(PROMPT, "a", "b")] * COUNT, range(COUNT))
    low, high = wilson(sum(c.tie for c in made) / COUNT, COUNT)
    assert low <= ties / (1 + ties) <= high


@pytest.mark.slow
def test_shares_of_groups_are_found_back() -> None:
    """By the choices alone: of answers that one group always and the other never prefers."""
    like, dislike = Panel({"r": Rater("r", {"list": 40.0})}), Panel({"r": Rater("s", {"list": -40.0})})
    made = judged(Groups({"like": like, "dislike": dislike}, shares={"like": 0.7, "dislike": 0.3}))
    listed = [(gap > 0) == c.first for gap, c in zip(GAPS[:, 1], made, strict=True) if gap]
    low, high = wilson(sum(listed) / len(listed), len(listed))
    assert low <= 0.7 <= high


# ---- fatigue and drift -----------------------------------------------------------------------------------------------
def test_fatigue_is_found_back() -> None:
    """Slope of 1 / weight over the number of the judgement: T_t = T_0 (1 + fatigue t); the delta method's interval."""
    fatigue = 0.5
    first = firsts(judged(Panel({"r": Rater("r", {"words": 0.2, "list": 2.0})}, fatigue=fatigue)))
    utility = GAPS[:, :2] @ np.array([0.2, 2.0])
    edges = np.linspace(0, COUNT, 7).astype(int)
    fits = [newton(utility[a:b, None], first[a:b]) for a, b in itertools.pairwise(edges)]
    temperature = np.array([1 / fit.values[0] for fit in fits])
    error = np.array([fit.errors[0] / fit.values[0] ** 2 for fit in fits])
    t = (edges[:-1] + edges[1:]) / 2 / 1000
    design = np.stack([np.ones_like(t), t], 1) / error[:, None]
    covariance = np.linalg.inv(design.T @ design)
    start, slope = covariance @ design.T @ (temperature / error)
    assert abs(start - 1) <= Z * math.sqrt(covariance[0, 0])
    assert abs(slope - fatigue) <= Z * math.sqrt(covariance[1, 1])
    assert slope > 5 * math.sqrt(covariance[1, 1])


@pytest.mark.slow
def test_drift_of_the_position_bias_is_found_back() -> None:
    drift, bias = 0.3, -0.5
    first = firsts(judged(Panel({"r": Rater("r", {"list": 1.0})}, position_bias=bias, drift=drift)))
    design = np.stack([GAPS[:, 1], np.ones(COUNT), np.arange(COUNT) / 1000], 1)
    found = newton(design, first)
    assert found.holds(0, 1.0) and found.holds(1, bias) and found.holds(2, drift)
