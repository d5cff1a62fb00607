"""The PPO stage end to end on a tiny policy: on-policy ratios, buffers, resuming, what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_ppo import GAE, PPOStage
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import RolloutBatch
from alignlab.data.records import Prompt
from alignlab.errors import DataError, NonFiniteError
from alignlab.stage import StageContext


def parameters(stage: PPOStage) -> dict[str, Tensor]:
    modules = stage.modules().items()
    return {f"{m}.{k}": v.detach().clone() for m, module in modules for k, v in module.named_parameters()}


# ---- on policy ------------------------------------------------------------------------------------------------------
class Drops(PPOStage):
    """A policy and a critic whose configuration asks for dropout."""

    def prepare(self, inputs: Any, context: StageContext) -> None:
        super().prepare(inputs, context)
        for module in [*self.policy.modules(), *self.critic.modules()]:
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.1


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_ratio_is_one_at_any_temperature_with_dropout_in_the_config(
    temperature: float, make_stage: Any, tea: Any, policy: Artifact, context: Any
) -> None:
    """Also in the last epoch of a buffer: at a learning rate of 0 nothing moves."""
    stage = make_stage(Drops, reward=tea, sampling_temperature=temperature, optimizer_lr=0.0)
    stage.run({"policy": policy}, context)
    ratios = [m["train/ratio"] for _, m in context.tracker.logged if "train/ratio" in m]
    assert len(ratios) == 6
    assert ratios == pytest.approx([1.0] * 6, abs=1e-5)
    assert all(m["train/clip_fraction"] == 0 for _, m in context.tracker.logged if "train/ratio" in m)
    kl = [m["train/kl"] for _, m in context.tracker.logged if "train/kl" in m]
    assert kl == pytest.approx([0.0] * 2, abs=1e-5)


# ---- training -------------------------------------------------------------------------------------------------------
class KilledError(Exception):
    """Stands for a kill."""


class Mortal(PPOStage):
    """Dies before the step that it is told."""

    dies_at = -1

    def batch_at(self, step: int) -> RolloutBatch:
        if step == self.dies_at:
            raise KilledError
        return super().batch_at(step)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 5])
def test_killed_at_any_step_it_goes_on_to_the_same_bits(
    dies_at: int, make_stage: Any, tea: Any, policy: Artifact, tmp_path: Path, context_in: Any, undisturbed: Any
) -> None:
    if not undisturbed:
        whole = make_stage(reward=tea)
        undisturbed["metrics"] = whole.run({"policy": policy}, context_in(tmp_path / "whole"))
        undisturbed["parameters"] = parameters(whole)
    killed = make_stage(Mortal, reward=tea, loop_save_every=1)
    killed.dies_at = dies_at
    with pytest.raises(KilledError):
        killed.run({"policy": policy}, context_in(tmp_path / "killed"))
    resumed = make_stage(reward=tea, loop_save_every=1)
    metrics = resumed.run({"policy": policy}, context_in(tmp_path / "killed"))
    found = parameters(resumed)
    assert found.keys() == undisturbed["parameters"].keys()
    assert all(torch.equal(v, undisturbed["parameters"][k]) for k, v in found.items())
    assert metrics == undisturbed["metrics"]


def test_the_memory_budget_does_not_change_what_is_learnt(
    make_stage: Any, tea: Any, policy: Artifact, tmp_path: Path, context_in: Any
) -> None:
    found = []
    for budget in (1, 40, 100_000):
        stage = make_stage(reward=tea, loop_micro_batch_tokens=budget)
        stage.run({"policy": policy}, context_in(tmp_path / str(budget)))
        found.append(parameters(stage))
    for other in found[:2]:
        assert max(float((other[k] - v).abs().max()) for k, v in found[2].items()) < 1e-5


def test_it_learns_what_it_is_rewarded_for(make_stage: Any, tea: Any, policy: Artifact, context: Any) -> None:
    stage = make_stage(
        reward=tea, advantage=GAE(beta=0.02), loop_steps=60, loop_batch_size=24, loop_validate_every=60,
        prompts_per_rollout=6, samples_per_prompt=8, optimizer_lr=5e-3, sampling_temperature=1.0,
    )  # fmt: skip
    found = stage.run({"policy": policy}, context)
    rewards = [m["train/reward"] for _, m in context.tracker.logged if "train/reward" in m]
    assert rewards[-1] > rewards[0] + 1.0
    assert found["validation_reward"] > found["validation_reference_reward"] + 1.0
    assert 0 < found["validation_kl"] < 60
    name = "train/explained_variance"
    explained = [m[name] for _, m in context.tracker.logged if name in m]
    assert explained[-1] > explained[0]


def test_the_critic_is_clipped_and_paced_apart(prepared: Any) -> None:
    stage = prepared(critic_lr=5e-4, critic_clip_norm=0.1)
    groups = {g.name: g for g in stage.parameter_groups()}
    assert (groups["critic"].lr, groups["critic"].clip_norm) == (5e-4, 0.1)
    ids = {id(p) for p in groups["policy"].parameters}
    assert not any(id(p) in ids for p in groups["critic"].parameters)
    frozen = {id(p) for p in stage.collector.reference.parameters()}
    trained = (p for module in stage.modules().values() for p in module.parameters())
    assert not frozen & {id(p) for p in trained}


# ---- what it refuses ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_top_p": 0.9}, "top_p must be 1"),
        ({"sampling_top_k": 5}, "top_k 0, got 1.0 and 5"),
        ({"sampling_temperature": 0.0}, "temperature must be > 0"),
        ({"loop_batch_size": 5}, "must divide the 12 units of a buffer .* got 5"),
        ({"epochs": 0}, "epochs must be >= 1"),
    ],
)
def test_arguments_that_cannot_work_are_refused(changes: dict[str, Any], message: str, make_stage: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make_stage(**changes)


def test_nothing_to_score_with_is_an_error(make_stage: Any, policy: Artifact, context: Any) -> None:
    with pytest.raises(ValueError, match=r"PPOStage: nothing scores the answers; set inputs\.reward"):
        make_stage().run({"policy": policy}, context)


def test_no_held_out_prompts_is_an_error(
    make_stage: Any, tea: Any, policy: Artifact, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(reward=tea)
    monkeypatch.setattr(type(stage.data), "prompts", lambda self, split: [Prompt.user("tea ?")] * (split == "train"))
    with pytest.raises(DataError, match="1 prompts to train on and 0 held out"):
        stage.run({"policy": policy}, context)


def test_a_reward_that_is_no_number_names_the_answer(
    make_stage: Any, tea: Any, policy: Artifact, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tea, "score", lambda prompts, answers: torch.full((len(answers),), float("nan")))
    with pytest.raises(NonFiniteError, match="scored nan for the answer"):
        make_stage(reward=tea).run({"policy": policy}, context)
