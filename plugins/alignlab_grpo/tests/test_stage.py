"""GRPO and RLOO end to end on a tiny policy: on-policy ratios, groups, learning, resuming, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_grpo import GRPO, GroupRelative, LeaveOneOut, Reinforce
from alignlab_ppo import GAE
from regimes import Counted, furthest, killed_before, online, parameters, prepared, run

from alignlab.artifact import Artifact
from alignlab.testing import tiny_policy_artifact
from alignlab.training import PolicyGradientStage

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"objective": GRPO(), "advantage": GroupRelative()},
    "rloo": {"objective": Reinforce(), "advantage": LeaveOneOut(beta=0.02)},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {"policy": tiny_policy_artifact(tmp_path_factory.mktemp("grpo") / "policy")}


def stage(method: str, **changes: Any) -> PolicyGradientStage:
    found: PolicyGradientStage = online(PolicyGradientStage, **{**METHODS[method], **changes})
    return found


# ---- on policy ------------------------------------------------------------------------------------------------------
def test_the_ratio_is_1_at_the_sampling_temperature(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """Also in the second epoch of a buffer: at a learning rate of 0 nothing moves."""
    _, seen = run(stage("grpo", lr=0.0, epochs=2, sampling_temperature=0.6), inputs, tmp_path)
    assert seen.values("train/ratio") == pytest.approx([1.0] * 6, abs=1e-5)
    assert seen.values("train/k3") == pytest.approx([0.0] * 6, abs=1e-9)
    assert seen.values("train/kl") == pytest.approx([0.0] * 2, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_answer_is_credited_against_its_own_group(
    method: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    """Advantages of a group add up to 0, whatever was sampled: they are relative to its own prompt."""
    ready = prepared(stage(method, sampling_temperature=1.0), inputs, tmp_path)
    ready.batch_at(0)
    buffer = ready._buffer
    assert buffer is not None and buffer.group.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    each = buffer.mean_by_sequence(buffer.advantage)
    sums = torch.zeros(4).index_add(0, buffer.group, each)
    assert float(each.abs().max()) > 0.1 and float(sums.abs().max()) < 1e-5


def test_a_reference_costs_a_pass_only_where_it_is_read(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    prepared(stage("grpo"), inputs, tmp_path / "a").batch_at(0)
    assert counted.measured == [12, 12], "old and reference log-probabilities"
    counted.measured.clear()
    plain = stage("rloo", advantage=GroupRelative())
    assert prepared(plain, inputs, tmp_path / "b").batch_at(0).per_token.keys() == {"advantage"}
    assert counted.measured == [] and plain.collector.reference is None
    assert counted.loads == 2, "the frozen copy is made of what was loaded"


class Measured(PolicyGradientStage):
    """Takes `old_logp` from a pass of its own in any case."""

    def reads_beforehand(self) -> frozenset[str]:
        """Everything."""
        return self.reads()


def test_where_each_buffer_is_stepped_on_once_the_step_gives_its_own_old_logp(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights without that pass: 12 answers are scored by the reference alone."""
    counted, once = Counted(monkeypatch), {"loop_batch_size": 12, "loop_steps": 3}
    saved, seen = run(stage("grpo", **once), inputs, tmp_path / "a")
    assert counted.measured.count(12) == 3
    counted.measured.clear()
    arguments = {**METHODS["grpo"], **once}
    measured = online(Measured, **arguments)
    expected = run(measured, inputs, tmp_path / "b")[1]
    assert counted.measured.count(12) == 6
    assert seen.values("train/ratio") == [1.0] * 3
    for name in ("train/kl", "train/loss", "train/reward"):
        assert seen.values(name) == pytest.approx(expected.values(name), abs=1e-5)
    again = stage("grpo", **once)
    run(again, inputs, tmp_path / "c")
    assert saved["validation_reward"] and furthest(again, measured) < 1e-6


# ---- learning -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_it_learns_what_it_is_rewarded_for(method: str, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    learner = stage(
        method, loop_steps=16, loop_batch_size=24, loop_validate_every=16, prompts_per_rollout=6,
        samples_per_prompt=4, lr=2e-2, sampling_temperature=1.0,
    )  # fmt: skip
    metrics, seen = run(learner, inputs, tmp_path)
    rewards = seen.values("train/reward")
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 1.0
    assert metrics["validation_reward"] > metrics["validation_reference_reward"] + 1.0
    assert 0 < metrics["validation_kl"] < 60


@pytest.mark.parametrize("dies_before", [1, 2, 3])
def test_killed_at_any_step_it_continues_to_the_same_bits(
    dies_before: int, inputs: dict[str, Artifact], tmp_path: Path, undisturbed: Any
) -> None:
    """Two steps per buffer: before an odd step the buffer comes out of the checkpoint."""
    killed_before(dies_before, short(), inputs, tmp_path)
    resumed = short()
    metrics, _ = run(resumed, inputs, tmp_path)
    assert metrics == undisturbed[0]
    found = parameters(resumed)
    assert all(torch.equal(v, undisturbed[1][k]) for k, v in found.items())


def short() -> PolicyGradientStage:
    return stage("rloo", loop_steps=4, loop_validate_every=4, loop_save_every=1)


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Metrics and weights of a run from end to end."""
    whole = short()
    metrics, _ = run(whole, inputs, tmp_path_factory.mktemp("whole"))
    return metrics, parameters(whole)


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_budget_does_not_change_what_is_learnt(
    method: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    stages = [stage(method, loop_steps=2, loop_micro_batch_tokens=budget) for budget in (1, 100_000)]
    for number, trained in enumerate(stages):
        run(trained, inputs, tmp_path / str(number))
    assert furthest(*stages) < 1e-5


# ---- what it refuses ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_one_answer_per_prompt_is_refused(method: str) -> None:
    its = type(METHODS[method]["advantage"]).__name__
    with pytest.raises(ValueError, match=rf"PolicyGradientStage: samples_per_prompt must be >= 2, got 1; {its} compar"):
        stage(method, samples_per_prompt=1, loop_batch_size=4)


def test_an_advantage_that_needs_a_critic_is_refused() -> None:
    wanted = r"GAE reads old_value, but the rollouts of PolicyGradientStage carry finished, group, old_logp, .*; choose"
    with pytest.raises(ValueError, match=wanted):
        stage("grpo", advantage=GAE())
