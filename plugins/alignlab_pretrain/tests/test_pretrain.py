"""The next-token loss against its closed form."""

import math

import pytest
import torch
from alignlab_pretrain import CausalLM

from alignlab.batch import TokenBatch
from alignlab.stats import TokenStats


def test_a_uniform_model_costs_the_log_of_its_vocabulary() -> None:
    batch = TokenBatch.of([[1, 2, 3], [1, 2]], [[True] * 3, [True] * 2])
    stats = TokenStats({"logp": torch.full((5,), -math.log(7)), "lse": torch.zeros(5)})
    objective = CausalLM()
    loss = objective(stats, batch)
    assert float(objective.units(batch)["loss"]) == 3  # the first token of a sequence is not predicted
    assert float(loss.mean(objective.units(batch))) == pytest.approx(math.log(7))


def test_z_loss_is_the_mean_squared_log_sum_exp() -> None:
    batch = TokenBatch.of([[1, 2, 3]], [[True] * 3])
    stats = TokenStats({"logp": torch.zeros(3), "lse": torch.tensor([9.0, 1.0, 3.0])})
    objective = CausalLM(z_loss=0.1)
    assert float(objective(stats, batch).mean(objective.units(batch))) == pytest.approx(0.1 * (1 + 9) / 2)


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match="z_loss must be >= 0, got -1"):
        CausalLM(z_loss=-1.0)
