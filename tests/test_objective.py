"""Losses as sums over units: what has weight 0, or stands outside the mask, cannot leak in."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignlab.batch import PreferenceBatch, TokenBatch
from alignlab.objective import Loss, token_units
from alignlab.stats import Mean

BAD = [math.inf, -math.inf, math.nan]
WEIGHT = torch.tensor([1.0, 0.0, 0.5])


def pairs() -> PreferenceBatch:
    return replace(PreferenceBatch.of([[1, 2]] * 6, [[False, True]] * 6), weight=WEIGHT)


def sequences() -> TokenBatch:
    """Answers of two, one and one scored tokens."""
    masks = [[False, True, True], [False, True], [False, False, True]]
    return replace(TokenBatch.of([[1, 2, 3], [1, 2], [1, 2, 3]], masks), weight=WEIGHT)


CASES: dict[str, tuple[Callable[..., Loss], Any, list[float], list[float]]] = {
    # What it is a sum over: function, batch, values (NaN where a bad one goes), gradient.
    "pairs": (Loss.over_pairs, pairs(), [3.0, math.nan, 8.0], [1.0, 0.0, 0.5]),
    "sequences": (Loss.over_sequences, sequences(), [3.0, math.nan, 8.0], [1.0, 0.0, 0.5]),
    "tokens": (
        Loss.over_tokens,
        sequences(),
        [math.nan, 1.0, 2.0, math.nan, math.nan, math.nan, math.nan, 8.0],
        [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5],
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", list(CASES))
def test_what_has_weight_0_adds_nothing_and_has_no_gradient(name: str, bad: float) -> None:
    """3 + 8 / 2 of pairs and sequences; 1 + 2 + 8 / 2 of tokens."""
    over, batch, values, gradient = CASES[name]
    x = torch.tensor(values).nan_to_num(bad, bad, bad).requires_grad_()
    loss = over(x, batch, metric=x)
    (term,) = loss.terms.values()
    assert float(term.detach()) == 7.0
    term.backward()
    assert x.grad is not None and x.grad.tolist() == gradient
    assert float(loss.metrics["metric"].value()) == pytest.approx(7 / sum(gradient))
    units: Tensor = token_units(batch) if name == "tokens" else batch.weight.sum()
    assert float(units) == sum(gradient)


@pytest.mark.parametrize("bad", BAD)
def test_a_mean_leaves_out_what_has_weight_0(bad: float) -> None:
    mean = Mean.of(torch.tensor([3.0, bad, 8.0]), WEIGHT)
    assert (float(mean.total), float(mean.weight)) == (7.0, 1.5)


@pytest.mark.parametrize("bad", BAD)
def test_a_sum_over_an_answer_leaves_out_what_is_masked_and_so_does_its_gradient(bad: float) -> None:
    x = torch.tensor([bad, 1.0, 2.0, bad, 4.0, bad, bad, 8.0], requires_grad=True)
    summed = sequences().sum_by_sequence(x)
    assert summed.tolist() == [3.0, 4.0, 8.0]
    summed.square().sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 6.0, 6.0, 0.0, 8.0, 0.0, 0.0, 16.0]
