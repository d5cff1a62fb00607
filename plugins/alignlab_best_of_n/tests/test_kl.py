"""The KL of best-of-n: against enumeration, against the closed form, and with ties."""

import itertools
import math
from collections import Counter

import pytest
from alignlab_best_of_n import kl_bound, kl_estimate, kl_of_masses


def enumerated(masses: list[float], rewards: list[float], n: int) -> list[float]:
    """Probability that each answer is the best of n, the first where several are: over all n-tuples of answers."""
    found = [0.0] * len(masses)
    for drawn in itertools.product(range(len(masses)), repeat=n):
        scores = [rewards[i] for i in drawn]
        found[drawn[scores.index(max(scores))]] += math.prod(masses[i] for i in drawn)
    return found


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_best_of_n_has_the_differences_of_powers(n: int) -> None:
    masses = [0.1, 0.2, 0.3, 0.4]
    below = [0.0, 0.1, 0.3, 0.6, 1.0]
    expected = [b**n - a**n for a, b in itertools.pairwise(below)]
    assert enumerated(masses, [1.0, 2.0, 3.0, 4.0], n) == pytest.approx(expected)
    assert kl_of_masses(masses, n) == pytest.approx(divergence(expected, masses))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_answers_of_one_reward_are_taken_as_the_policy_gives_them(n: int) -> None:
    """Rewards 0, 1, 1, 2: the masses of the middle ones add up, and share what is taken."""
    masses = [0.1, 0.2, 0.3, 0.4]
    best = enumerated(masses, [0.0, 1.0, 1.0, 2.0], n)
    assert best[1] / best[2] == pytest.approx(0.2 / 0.3)
    assert kl_of_masses([0.1, 0.5, 0.4], n) == pytest.approx(divergence(best, masses))


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_many_small_answers_come_up_to_the_bound(n: int) -> None:
    size = 20_000
    found = kl_of_masses([1 / size] * size, n)
    assert found == pytest.approx(kl_bound(n), abs=1e-4)
    assert found <= kl_bound(n)


def test_the_bound_of_two() -> None:
    assert kl_bound(2) == pytest.approx(math.log(2) - 0.5)
    assert kl_bound(1) == 0


@pytest.mark.parametrize("masses", [[1.0], [0.5, 0.5], [0.9, 0.1], [0.01, 0.99], [0.2, 0.3, 0.5]])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_ties_bring_it_below_the_bound(masses: list[float], n: int) -> None:
    assert -1e-12 <= kl_of_masses(masses, n) <= kl_bound(n) + 1e-12


def test_a_fair_coin() -> None:
    """Right or wrong with equal odds, best of 2: wrong 1/4, right 3/4."""
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert kl_of_masses([0.5, 0.5], 2) == pytest.approx(expected)
    assert kl_estimate([1.0, 0.0, 0.0, 1.0]) == pytest.approx(kl_of_masses([0.5, 0.5], 4))


def test_the_estimate_is_the_bound_without_ties_and_nothing_of_one_reward() -> None:
    assert kl_estimate([3.0, -1.0, 0.5, 2.0]) == pytest.approx(kl_bound(4))
    assert kl_estimate([0.5] * 4) == 0
    assert kl_estimate([7.0]) == 0


def test_the_estimate_in_between() -> None:
    """Rewards 0, 1, 1 of n = 3: a single below 1/3, and a tie of mass 2/3 above it."""
    third = 1 / 3
    single = third**3 * (math.log(3) + 2 * (math.log(third) - third))
    tie = (1 - third**3) * math.log((1 - third**3) / (2 / 3))
    assert kl_estimate([1.0, 0.0, 1.0]) == pytest.approx(single + tie)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_estimate_never_exceeds_the_bound(n: int) -> None:
    seen = Counter(kl_estimate(list(map(float, rewards))) <= kl_bound(n) + 1e-12
                   for rewards in itertools.product(range(3), repeat=n))  # fmt: skip
    assert seen.keys() == {True}
