"""Dynamic sampling: groups without a signal give way to other prompts, as a function of seed and buffer alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_grpo import DAPO, DynamicSampling, GroupRelative
from regimes import killed_before, online, parameters, prepared, run
from torch import Tensor

from alignlab.advantage import without_signal
from alignlab.artifact import Artifact
from alignlab.batch import RolloutBatch
from alignlab.data.records import Prompt
from alignlab.reward import RewardSource
from alignlab.testing import tiny_policy_artifact


class OnlyAna(RewardSource):
    """Answers to questions about ana differ in reward, by their words; all others earn 1."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        pairs = zip(prompts, answers, strict=True)
        return torch.tensor([float(sum(map(ord, a))) if "ana" in p.text else 1.0 for p, a in pairs])


class Equal(OnlyAna):
    """Every answer earns the same."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return torch.ones(len(answers))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {"policy": tiny_policy_artifact(tmp_path_factory.mktemp("dapo") / "policy")}


def stage(**changes: Any) -> DynamicSampling:
    """Four of six prompts per buffer, three of which are about ana; three answers to each."""
    own = {"objective": DAPO(), "advantage": GroupRelative(), "reward": OnlyAna(), "sampling_temperature": 1.0}
    found: DynamicSampling = online(DynamicSampling, **own | changes)
    return found


def buffer(inputs: dict[str, Artifact], folder: Path, **changes: Any) -> RolloutBatch:
    ready = prepared(stage(**changes), inputs, folder)
    ready.batch_at(0)
    found = ready._buffer
    assert found is not None and found.num_units == 12
    return found


def empty(rollouts: RolloutBatch) -> int:
    """Groups without a signal; every group is whole, and its advantages add up to 0."""
    groups = rollouts.group.unique()
    assert len(groups) == 4 and all(int((rollouts.group == g).sum()) == 3 for g in groups)
    each = rollouts.mean_by_sequence(rollouts.advantage)
    assert all(abs(float(each[rollouts.group == g].sum())) < 1e-5 for g in groups)
    return int(without_signal(rollouts.sequence("reward"), rollouts.group).sum()) // 3


def test_groups_without_signal_are_replaced_round_by_round(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    left = [empty(buffer(inputs, tmp_path / str(n), rounds=n)) for n in (1, 2, 12)]
    assert left[0] >= left[1] >= left[2] == 0 and left[0] > 0


def test_with_no_signal_anywhere_the_buffer_is_full_and_teaches_nothing(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    found = buffer(inputs, tmp_path, reward=Equal())
    assert empty(found) == 4 and not found.advantage.any()


def test_more_gaps_than_prompts_leave_some_of_the_dropped_groups(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """Eight groups of a buffer, and six prompts to draw from."""
    ready = prepared(stage(reward=Equal(), prompts_per_rollout=8), inputs, tmp_path)
    ready.batch_at(0)
    assert ready._buffer is not None and ready._buffer.num_units == 24
    assert len(ready._buffer.group.unique()) == 8


def test_the_same_seed_gives_the_same_buffer(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    one, two, other = (buffer(inputs, tmp_path / str(n), seed=seed) for n, seed in enumerate((5, 5, 6)))
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.advantage, two.advantage)
    assert not torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("dies_before", [1, 2, 3])
def test_killed_at_any_step_it_continues_to_the_same_bits(
    dies_before: int, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    def short() -> DynamicSampling:
        return stage(loop_steps=4, loop_validate_every=4, loop_save_every=1)

    whole, resumed = short(), short()
    expected, _ = run(whole, inputs, tmp_path / "whole")
    killed_before(dies_before, short(), inputs, tmp_path / "killed")
    metrics, _ = run(resumed, inputs, tmp_path / "killed")
    assert metrics == expected
    found, wanted = parameters(resumed), parameters(whole)
    assert all(torch.equal(v, wanted[k]) for k, v in found.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "DynamicSampling: rounds must be >= 1, got 0; the first one samples"),
        (
            {"samples_per_prompt": 1, "loop_batch_size": 4},
            "samples_per_prompt must be >= 2, got 1; GroupRelative compares",
        ),
    ],
)
def test_arguments_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage(**changes)
