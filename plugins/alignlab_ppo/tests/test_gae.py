"""GAE as a whole: the order and scope of reward, returns and whitening (arXiv:2403.17031)."""

import math
from dataclasses import replace

import pytest
import torch
from alignlab_ppo import GAE

from alignlab.batch import RolloutBatch, concatenate

MASK = [[False, False, True, True, True], [False, True, True]]
ADVANTAGE = torch.tensor([0.875, 0.85, 0.5, -1.7, -1.2])  # beta 0.1, gamma 1, lam 0.5, penalty 3; worked out on paper
RETURNS = torch.tensor([1.375, 1.85, 2.0, -1.7, -2.2])


def buffer(stop_token: int = 0, junk: float = 0.0) -> RolloutBatch:
    batch = RolloutBatch.of([[1, 2, 3, 4, stop_token], [1, 3, 3]], MASK)
    extras = {
        "old_logp": torch.tensor([-1.0, -2.0, -0.5, -1.0, -1.0]),
        "reference_logp": torch.tensor([-1.5, -1.0, -0.5, -2.0, -3.0]),
        "old_value": torch.tensor([0.5, 1.0, 1.5, 0.0, -1.0]),
    }
    full = {k: torch.full((8,), junk).masked_scatter(batch.response_mask, v) for k, v in extras.items()}
    return batch.with_tokens(**full).with_sequences(reward=torch.tensor([2.0, 1.0]), finished=torch.tensor([1.0, 0.0]))


def test_table_returns_come_first_and_whitening_after_over_valid_tokens() -> None:
    found = GAE(beta=0.1, lam=0.5, missing_eos_penalty=3.0)(buffer())
    valid = found.response_mask
    white = (ADVANTAGE - ADVANTAGE.mean()) / ADVANTAGE.std(correction=0)
    assert torch.allclose(found.returns[valid], RETURNS)
    assert torch.allclose(found.advantage[valid], white, atol=1e-6)
    assert found.advantage[~valid].tolist() == [0.0, 0.0, 0.0]


def test_without_whitening_the_advantages_are_those_of_the_table() -> None:
    found = GAE(beta=0.1, lam=0.5, missing_eos_penalty=3.0, whiten=False)(buffer())
    assert torch.allclose(found.advantage[found.response_mask], ADVANTAGE)


@pytest.mark.parametrize("junk", [100.0, math.nan])
def test_masked_values_change_nothing_to_the_bit(junk: float) -> None:
    found, expected = GAE()(buffer(junk=junk)), GAE()(buffer())
    assert torch.equal(found.advantage, expected.advantage)
    assert torch.equal(found.returns, expected.returns)


def test_any_stop_token_works_because_only_the_finished_extra_is_read() -> None:
    found, expected = GAE()(buffer(stop_token=77)), GAE()(buffer())
    assert torch.equal(found.advantage, expected.advantage)


def test_an_unfinished_answer_is_punished_at_its_last_token_only() -> None:
    plain = GAE(missing_eos_penalty=0.0, lam=0.0, whiten=False)(buffer())
    punished = GAE(missing_eos_penalty=3.0, lam=0.0, whiten=False)(buffer())
    difference = (punished.advantage - plain.advantage).tolist()
    assert difference == pytest.approx([0, 0, 0, 0, 0, 0, 0, -3.0], abs=1e-6)


def test_scope_is_the_whole_buffer_not_each_part() -> None:
    gae, one = GAE(lam=0.5), buffer()
    richer = one.with_sequences(reward=one.sequence("reward") + 10)
    together = gae(concatenate([one, richer]))
    apart = concatenate([gae(one), gae(richer)])
    valid = together.response_mask
    assert float(together.advantage[valid].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(together.advantage[valid].std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    assert float((together.advantage - apart.advantage).abs().max()) > 0.5
    assert torch.allclose(together.returns, apart.returns)


def test_the_order_of_sequences_does_not_matter() -> None:
    swapped = GAE()(buffer().select_units([1, 0]))
    expected = GAE()(buffer()).select_units([1, 0])
    assert torch.allclose(swapped.advantage, expected.advantage, atol=1e-6)


def test_weights_count_in_the_whitening() -> None:
    doubled = GAE()(replace(buffer(), weight=torch.tensor([2.0, 1.0])))
    twice = GAE()(buffer().select_units([0, 0, 1]))
    assert torch.allclose(doubled.advantage[:5], twice.advantage[:5], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"beta": -1.0}, "beta"), ({"gamma": 1.5}, "gamma"), ({"lam": -0.1}, "lam"), ({"missing_eos_penalty": -1.0}, "m")],
)
def test_bad_arguments_are_refused(arguments: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=f"GAE: {word}"):
        GAE(**arguments)
