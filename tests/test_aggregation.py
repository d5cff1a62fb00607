"""Aggregation: Dawid and Skene's own example, independent fits, and crowds whose truth is known."""

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from alignlab.judgements.aggregation import (
    Aggregate,
    CrowdBradleyTerry,
    DawidSkene,
    Majority,
    Soft,
    Vote,
    votes,
)
from alignlab.judgements.crowd_bt import Duels, crowd_bradley_terry
from alignlab.judgements.dawid_skene import dawid_skene
from alignlab.judgements.records import Judgement

ANAESTHETISTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
"""Table 1 of Dawid and Skene 1979: the class of 45 patients by five anaesthetists, by the first of them three times."""
OBSERVERS = (0, 0, 0, 1, 2, 3, 4)


def patients() -> np.ndarray:
    counts = np.zeros((45, 5, 4))
    for i, row in enumerate(ANAESTHETISTS.split()):
        for observer, said in zip(OBSERVERS, row, strict=True):
            counts[i, observer, int(said) - 1] += 1
    return counts


def plain_em(counts: np.ndarray, steps: int) -> tuple[list[list[float]], list[float]]:
    """Dawid and Skene's equations as they stand in the paper, in loops; posteriors and shares."""
    items, raters, classes = counts.shape
    n = counts.tolist()
    t = [[sum(n[i][k][j] for k in range(raters)) for j in range(classes)] for i in range(items)]
    t = [[x / sum(row) for x in row] for row in t]
    for _ in range(steps):
        p = [sum(t[i][j] for i in range(items)) / items for j in range(classes)]
        pi = [[[0.0] * classes for _ in range(classes)] for _ in range(raters)]
        for k in range(raters):
            for j in range(classes):
                said = [sum(t[i][j] * n[i][k][c] for i in range(items)) for c in range(classes)]
                pi[k][j] = [s / sum(said) if sum(said) else 0.25 for s in said]
        t = []
        for i in range(items):
            likely = [
                p[j] * math.prod(pi[k][j][c] ** n[i][k][c] for k in range(raters) for c in range(classes))
                for j in range(classes)
            ]
            t.append([x / sum(likely) for x in likely])
    return t, p


# ---- Dawid and Skene -------------------------------------------------------------------------------------------------
def test_the_anaesthetists_come_out_as_in_the_paper() -> None:
    found = dawid_skene(patients())
    assert found.classes.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    assert found.rates[0].round(2).tolist()[0] == [0.89, 0.11, 0.00, 0.00]
    assert found.rates[0].round(2).tolist()[1] == [0.07, 0.88, 0.05, 0.00]


def test_the_anaesthetists_come_out_as_by_the_papers_equations_in_loops() -> None:
    found = dawid_skene(patients(), tolerance=1e-13)
    posterior, classes = plain_em(patients(), found.steps)
    assert found.posterior == pytest.approx(np.array(posterior), abs=1e-9)
    assert found.classes == pytest.approx(np.array(classes), abs=1e-9)


def test_the_likelihood_rises() -> None:
    found = [dawid_skene(patients(), iterations=n).log_likelihood for n in range(1, 40)]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(found))


def test_an_item_without_a_judgement_is_refused() -> None:
    with pytest.raises(ValueError, match="every item has a judgement"):
        dawid_skene(np.zeros((2, 2, 2)))


# ---- crowd Bradley-Terry ---------------------------------------------------------------------------------------------
def duels(seed: int = 0, answers: int = 12, raters: int = 5, count: int = 3000) -> tuple[Duels, np.ndarray, np.ndarray]:
    """Judgements by the model itself: with the true scores and reliabilities."""
    draws = np.random.default_rng(seed)
    scores, eta = draws.normal(size=answers), np.linspace(0.55, 0.98, raters)
    first = draws.integers(answers, size=count)
    second = (first + draws.integers(1, answers, size=count)) % answers
    rater = draws.integers(raters, size=count)
    p = 1 / (1 + np.exp(scores[second] - scores[first]))
    said = draws.random(count) < eta[rater] * p + (1 - eta[rater]) * (1 - p)
    return Duels(first, second, rater, said.astype(float)), scores, eta


def test_crowd_bradley_terry_is_where_another_optimiser_ends() -> None:
    """The same objective by L-BFGS."""
    given, _, _ = duels(count=600)
    given.preferred[:40] = 0.5
    found = crowd_bradley_terry(given, 12, 5, penalty=0.5, prior=(10.0, 2.0), iterations=20000, tolerance=1e-12)
    first, second, rater = (torch.from_numpy(x) for x in (given.first, given.second, given.rater))
    share = torch.from_numpy(given.preferred)
    s = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    logit = torch.full((5,), 1.5, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [s, logit], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        p, eta = torch.sigmoid(s[first] - s[second]), torch.sigmoid(logit)[rater]
        yes, no = eta * p + (1 - eta) * (1 - p), eta * (1 - p) + (1 - eta) * p
        reliability = torch.sigmoid(logit)
        prior = (9 * reliability.log() + (1 - reliability).log()).sum()
        node = 0.5 * (torch.nn.functional.logsigmoid(s) + torch.nn.functional.logsigmoid(-s)).sum()
        total = -((share * yes.log() + (1 - share) * no.log()).sum() + prior + node)
        total.backward()
        return total

    search.step(loss)
    assert found.scores == pytest.approx(s.detach().numpy(), abs=1e-6)
    assert found.reliability == pytest.approx(torch.sigmoid(logit).detach().numpy(), abs=1e-6)


def test_crowd_bradley_terry_finds_scores_and_reliabilities_back() -> None:
    given, scores, eta = duels(count=20000)
    found = crowd_bradley_terry(given, 12, 5, penalty=0.01, prior=(1.5, 1.0))
    assert found.reliability == pytest.approx(eta, abs=0.04)
    assert np.corrcoef(found.scores, scores)[0, 1] > 0.99


# ---- votes -----------------------------------------------------------------------------------------------------------
def test_votes_of_choices_rankings_and_ties() -> None:
    three = ("a", "b", "c")
    given = [
        Judgement("1", "p", three, "x", 1),
        Judgement("1", "p", ("c", "b", "a"), "y", 2, ranking=(2, 0, 1)),
        Judgement("2", "p", ("a", "b"), "x", None, tie=True),
        Judgement("2", "p", ("a", "b"), "y", None),
    ]
    found = [(v.pair, v.rater, v.preferred) for v in votes(given)]
    assert found == [
        (("1", "a", "b"), "x", 0.0),
        (("1", "b", "c"), "x", 1.0),
        (("1", "a", "b"), "y", 1.0),
        (("1", "a", "c"), "y", 1.0),
        (("1", "b", "c"), "y", 0.0),
        (("2", "a", "b"), "x", 0.5),
    ]


def said(*of_first: Sequence[float]) -> list[Vote]:
    """Votes on pairs, one rater after the other."""
    return [Vote((str(i), "a", "b"), str(i), f"r{k}", v) for i, row in enumerate(of_first) for k, v in enumerate(row)]


def test_majority_and_soft_on_paper() -> None:
    given = said([1, 1, 0], [0, 0.5, 0], [1, 0])
    assert [c.first for c in Majority()(given)] == [1.0, 0.0, 0.5]
    assert [c.first for c in Soft()(given)] == pytest.approx([2 / 3, 1 / 6, 0.5])
    assert [(c.share, c.count) for c in Majority()(given)] == [(2 / 3, 3), (pytest.approx(1 / 6), 3), (0.5, 2)]
    assert [c.tied for c in Majority()(given)] == [False, False, True]
    assert [c.of_chosen for c in Soft()(given)] == [(2 / 3, 2 / 3), pytest.approx((5 / 6, 5 / 6)), (0.5, 0.5)]


AGGREGATES: list[Aggregate] = [Majority(), Soft(), DawidSkene(), CrowdBradleyTerry()]


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=lambda a: type(a).__name__)
def test_every_aggregate_goes_by_what_all_say_and_knows_no_side(aggregate: Aggregate) -> None:
    assert aggregate([]) == []
    assert [c.first > 0.5 for c in aggregate(said([1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]))] == [1, 0, 1, 0]
    (tie,) = aggregate(said([0.5, 0.5]))
    assert tie.first == pytest.approx(0.5, abs=1e-9)
    given = said([1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0])
    turned = [Vote((v.pair[0], v.pair[2], v.pair[1]), v.prompt, v.rater, 1 - v.preferred) for v in given]
    ones, others = ([c.first for c in aggregate(votes)] for votes in (given, turned))
    assert ones == pytest.approx([1 - x for x in others], abs=1e-6)


def crowd(items: int = 800, raters: int = 12, each: int = 4) -> tuple[list[Vote], list[bool], list[float]]:
    """Votes of raters of different accuracy, with the truth and the accuracies."""
    draws = random.Random(0)
    accuracy = [0.55 + 0.43 * k / (raters - 1) for k in range(raters)]
    truth = [draws.random() < 0.5 for _ in range(items)]
    given = [
        Vote((str(i), "a", "b"), str(i), f"r{k}", float(true == (draws.random() < accuracy[k])))
        for i, true in enumerate(truth)
        for k in draws.sample(range(raters), each)
    ]
    return given, truth, accuracy


def test_models_of_raters_find_more_than_the_majority() -> None:
    given, truth, _ = crowd()
    right = {
        type(a).__name__: sum(
            (c.first > 0.5) + 0.5 * c.tied if t else (c.first < 0.5) + 0.5 * c.tied
            for c, t in zip(a(given), truth, strict=True)
        )
        / len(truth)
        for a in AGGREGATES
    }

    assert right["Majority"] == right["Soft"] < 0.90
    assert right["DawidSkene"] > right["Majority"] + 0.03
    assert right["CrowdBradleyTerry"] > right["Majority"] + 0.03


def test_the_accuracy_of_each_rater_is_found_back() -> None:
    given, _, accuracy = crowd()
    counts = np.zeros((800, 12, 2))
    for vote in given:
        counts[int(vote.pair[0]), int(vote.rater[1:])] += vote.preferred, 1 - vote.preferred
    rates = dawid_skene(counts).rates
    found = (rates[:, 0, 0] + rates[:, 1, 1]) / 2

    assert np.corrcoef(found, accuracy)[0, 1] > 0.9


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="DawidSkene: smoothing must be >= 0, got -1"):
        DawidSkene(smoothing=-1)
    with pytest.raises(ValueError, match="CrowdBradleyTerry: penalty must be > 0, got 0"):
        CrowdBradleyTerry(penalty=0)
    with pytest.raises(ValueError, match="reliable must be above unreliable"):
        CrowdBradleyTerry(reliable=1, unreliable=1)
    with pytest.raises(ValueError, match="DawidSkene: iterations must be >= 1"):
        DawidSkene(iterations=0)
