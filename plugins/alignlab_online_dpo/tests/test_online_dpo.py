"""Pairs of the policy's own answers: which are made, at which temperature, and what is learnt from them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO, IPO
from alignlab_online_dpo import OnlinePreferences
from alignlab_simpo import SimPO
from regimes import Counted, furthest, killed_before, online, parameters, prepared, run
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch, RolloutBatch
from alignlab.stats import TokenStats
from alignlab.testing import tiny_policy_artifact


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {"policy": tiny_policy_artifact(tmp_path_factory.mktemp("online_dpo") / "policy")}


def stage(**changes: Any) -> OnlinePreferences:
    own: dict[str, Any] = {"objective": DPO(0.5), "loop_batch_size": 2, "sampling_temperature": 0.8}
    found: OnlinePreferences = online(OnlinePreferences, **{**own, **changes})
    return found


# ---- pairs ----------------------------------------------------------------------------------------------------------
def rollouts(reward: list[float]) -> RolloutBatch:
    """Answers of one, two, three, ... tokens, three to each prompt; the last token tells them apart."""
    count = len(reward)
    rows = [[1, *[3] * n, 10 + n] for n in range(count)]
    batch = RolloutBatch.of(rows, [[False] + [True] * (n + 1) for n in range(count)], temperature=0.8)
    batch = batch.with_tokens(reference_logp=-batch.tokens.float())
    return batch.with_sequences(reward=torch.tensor(reward), group=torch.arange(count) // 3)


def made_of(reward: list[float]) -> PreferenceBatch:
    made = stage(prompts_per_rollout=len(reward) // 3, loop_batch_size=1).train_on(rollouts(reward), 0)
    assert made.temperature == 0.8
    return made


def last_tokens(batch: PreferenceBatch) -> list[int]:
    found: Tensor = batch.tokens[batch.last_tokens()]
    return found.tolist()


def test_the_best_answer_to_each_prompt_is_chosen_and_the_worst_rejected() -> None:
    pairs = made_of([0.5, 2.0, -1.0, 3.0, 1.0, 2.0])
    assert last_tokens(pairs) == [11, 12, 13, 14]
    assert pairs.weight.tolist() == [1.0, 1.0]
    assert torch.equal(pairs.reference_logp, -pairs.tokens.float())
    assert pairs.chosen(pairs.sequence("reward")).tolist() == [2.0, 3.0]
    assert pairs.rejected(pairs.sequence("reward")).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("equal", [[1.0, 1.0, 1.0], [0.7, 0.7000001, 0.7], [1e9, 1e9 + 64, 1e9]])
def test_a_prompt_whose_rewards_are_equal_up_to_rounding_weighs_nothing(equal: list[float]) -> None:
    pairs = made_of([*equal, 0.0, 1.0, 0.5])
    assert pairs.weight.tolist() == [0.0, 1.0]
    assert last_tokens(pairs)[2:] == [14, 13]


def test_a_step_of_ties_alone_costs_and_teaches_nothing() -> None:
    pairs = made_of([1.0, 1.0, 1.0])
    logp = torch.zeros(pairs.num_tokens, requires_grad=True)
    loss = DPO()(TokenStats({"logp": logp}), pairs).mean(DPO().units(pairs))
    (gradient,) = torch.autograd.grad(loss, logp)
    assert float(loss.detach()) == 0.0 and not gradient.any()


# ---- the start ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [0.8, 1.0, 1.5])
@pytest.mark.parametrize(("objective", "start"), [(DPO(0.5), math.log(2)), (IPO(0.5), 1.0)])
def test_at_the_start_every_margin_is_0_at_any_temperature(
    temperature: float, objective: Any, start: float, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    """Scored at temperature 1, pairs that were sampled at 0.8 would start elsewhere."""
    first = stage(objective=objective, sampling_temperature=temperature, loop_steps=1)
    _, seen = run(first, inputs, tmp_path)
    assert seen.values("train/loss") == pytest.approx([start], abs=1e-5)
    assert seen.values("train/margin") == pytest.approx([0.0], abs=1e-5)


def test_an_objective_without_reference_costs_no_pass(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    ready = prepared(stage(objective=SimPO()), inputs, tmp_path)
    assert ready.batch_at(0).per_token == {} and ready.collector.reference is None
    assert (counted.loads, counted.measured) == (1, [])


# ---- learning -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("objective", "lr"), [(DPO(0.1), 1e-2), (IPO(0.2), 5e-3)])
def test_it_learns_what_it_is_rewarded_for(
    objective: Any, lr: float, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    learner = stage(
        objective=objective, loop_steps=12, loop_batch_size=6, loop_validate_every=12, prompts_per_rollout=6,
        samples_per_prompt=4, lr=lr, sampling_temperature=1.0,
    )  # fmt: skip
    metrics, seen = run(learner, inputs, tmp_path)
    rewards = seen.values("train/reward")
    assert sum(rewards[-3:]) / 3 > rewards[0] + 0.7
    assert metrics["validation_reward"] > metrics["validation_reference_reward"] + 0.7


def short() -> OnlinePreferences:
    return stage(loop_steps=4, loop_validate_every=4, loop_save_every=1)


@pytest.mark.parametrize("dies_before", [1, 2, 3])
def test_killed_at_any_step_it_continues_to_the_same_bits(
    dies_before: int, inputs: dict[str, Artifact], tmp_path: Path, undisturbed: Any
) -> None:
    """Two steps per buffer: before an odd step the pairs come out of the checkpoint."""
    killed_before(dies_before, short(), inputs, tmp_path)
    resumed = short()
    metrics, _ = run(resumed, inputs, tmp_path)
    assert metrics == undisturbed[0]
    assert all(torch.equal(v, undisturbed[1][k]) for k, v in parameters(resumed).items())


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Metrics and weights of a run from end to end."""
    whole = short()
    metrics, _ = run(whole, inputs, tmp_path_factory.mktemp("whole"))
    return metrics, parameters(whole)


def test_the_memory_budget_does_not_change_what_is_learnt(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stages = [stage(loop_steps=2, loop_micro_batch_tokens=budget) for budget in (1, 100_000)]
    for number, trained in enumerate(stages):
        run(trained, inputs, tmp_path / str(number))
    assert furthest(*stages) < 1e-5


# ---- what it refuses ------------------------------------------------------------------------------------------------
def test_one_answer_per_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="OnlinePreferences: samples_per_prompt must be >= 2, got 1; a pair is made"):
        stage(samples_per_prompt=1)


def test_minibatches_are_of_pairs_not_of_answers() -> None:
    assert stage(loop_batch_size=4).steps_per_rollout == 1
    with pytest.raises(ValueError, match=r"loop\.batch_size must divide the 4 units of a buffer .* got 3"):
        stage(loop_batch_size=3)
