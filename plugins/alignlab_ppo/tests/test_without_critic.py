"""PPO's stage without a critic: an objective and an advantage that ask for no values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_ppo import PPO, PPOStage
from torch import Tensor

from alignlab.advantage import Advantage
from alignlab.artifact import Artifact
from alignlab.batch import RolloutBatch
from alignlab.objective import Loss, Objective
from alignlab.stats import TokenStats


@dataclass(frozen=True)
class Reinforce(Objective[RolloutBatch]):
    """Mean over tokens of `-advantage * logp` (Williams 1992)."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"advantage"})

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        return self.loss(batch, loss=-batch.scored(batch.advantage) * stats.logp)


@dataclass(frozen=True)
class RewardToAll(Advantage):
    """Every token of an answer is credited with the answer's reward, less the price of its divergence."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "old_logp", "reference_logp"})
    beta: float = 0.01

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        gained = rollouts.sum_by_sequence(rollouts.old_logp - rollouts.reference_logp)
        paid = rollouts.sequence("reward") - self.beta * gained
        return rollouts.with_tokens(advantage=rollouts.scored(paid[rollouts.sequence_id]))


ASKS_FOR_NOTHING: dict[str, Any] = {"objective": Reinforce(), "advantage": RewardToAll()}


class KilledError(Exception):
    """Stands for a kill."""


class Mortal(PPOStage):
    """Dies before step 3, in the middle of a buffer."""

    def batch_at(self, step: int) -> RolloutBatch:
        if step == 3:
            raise KilledError
        return super().batch_at(step)


def parameters(stage: PPOStage) -> dict[str, Tensor]:
    modules = stage.modules().items()
    return {f"{m}.{k}": v.detach().clone() for m, module in modules for k, v in module.named_parameters()}


def test_no_critic_is_built_and_no_value_is_in_the_buffer(prepared: Any) -> None:
    stage = prepared(**ASKS_FOR_NOTHING)
    assert stage.critic is None
    assert [g.name for g in stage.parameter_groups()] == ["policy"]
    assert all(k.startswith("policy.") for k in parameters(stage))
    batch = stage.batch_at(0)
    assert batch.per_token.keys() == {"old_logp", "reference_logp", "advantage"}
    assert stage.token_stats(batch).values.keys() == {"logp"}


@pytest.mark.parametrize("asks", ["objective", "advantage"])
def test_one_that_asks_for_values_is_enough_for_a_critic(asks: str, prepared: Any) -> None:
    class ReadsValues(RewardToAll):
        """Reads the forecasts too."""

        VERSION: ClassVar[str] = "1"
        reads: ClassVar[frozenset[str]] = RewardToAll.reads | {"old_value"}

        def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
            found = super().__call__(rollouts)
            return found.with_tokens(advantage=rollouts.scored(found.advantage - rollouts.old_value))

    changed = {"objective": PPO()} if asks == "objective" else {"advantage": ReadsValues()}
    stage = prepared(**{**ASKS_FOR_NOTHING, **changed})
    assert stage.critic is not None
    assert [g.name for g in stage.parameter_groups()] == ["policy", "critic"]


def test_it_learns_what_it_is_rewarded_for(make_stage: Any, tea: Any, policy: Artifact, context: Any) -> None:
    stage = make_stage(
        reward=tea, loop_steps=30, loop_batch_size=24, loop_validate_every=30, prompts_per_rollout=6,
        samples_per_prompt=4, epochs=1, optimizer_lr=5e-3, sampling_temperature=1.0, **ASKS_FOR_NOTHING,
    )  # fmt: skip
    found = stage.run({"policy": policy}, context)
    rewards = [m["train/reward"] for _, m in context.tracker.logged if "train/reward" in m]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.5
    assert found["validation_reward"] > found["validation_reference_reward"]
    assert not any("explained_variance" in m for _, m in context.tracker.logged)


def test_killed_in_the_middle_of_a_buffer_it_goes_on_to_the_same_bits(
    make_stage: Any, tea: Any, policy: Artifact, tmp_path: Path, context_in: Any
) -> None:
    whole = make_stage(reward=tea, **ASKS_FOR_NOTHING)
    metrics = whole.run({"policy": policy}, context_in(tmp_path / "whole"))
    killed = make_stage(Mortal, reward=tea, loop_save_every=1, **ASKS_FOR_NOTHING)
    with pytest.raises(KilledError):
        killed.run({"policy": policy}, context_in(tmp_path / "killed"))
    kept = torch.load(tmp_path / "killed" / "work" / "last.ckpt", weights_only=True)
    assert not any(k.startswith("critic") for k in kept["state_dict"])
    assert "old_value" not in kept["stage"]["buffer"]["per_token"]
    resumed = make_stage(reward=tea, loop_save_every=1, **ASKS_FOR_NOTHING)
    assert resumed.run({"policy": policy}, context_in(tmp_path / "killed")) == metrics
    found, expected = parameters(resumed), parameters(whole)
    assert found.keys() == expected.keys() and all(torch.equal(v, expected[k]) for k, v in found.items())
