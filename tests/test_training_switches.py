"""Switches of the runtime: each changes speed or memory, and nothing that is learnt."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO
from alignlab_grpo import GRPO, GroupRelative
from regimes import adam, furthest, loop, online, run
from torch import nn

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.policy import Policy, Sampling, generate
from alignlab.policy.blocks import BlockOptions, adapt_blocks, blocks_of
from alignlab.runtime import Runtime
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import PolicyGradientStage, PreferenceStage
from alignlab.training.device import peak_memory

# Of torch's compiler itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]
PLAIN = Runtime("cpu", threads=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("switches")
    preferences = tiny_preferences_artifact(folder / "preferences")
    return {"policy": tiny_policy_artifact(folder / "policy"), "preferences": preferences}


def pairs() -> PreferenceStage:
    return PreferenceStage(objective=DPO(), optimizer=adam(1e-2), loop=loop(), seed=3)


def answers() -> PolicyGradientStage:
    made: PolicyGradientStage = online(PolicyGradientStage, objective=GRPO(), advantage=GroupRelative(), lr=1e-2)
    return made


def trained(make: Any, inputs: dict[str, Artifact], folder: Path, runtime: Runtime) -> Any:
    stage = make()
    needed = {name: inputs[name] for name in stage.INPUTS}
    stage.run_metrics, stage.seen = run(stage, needed, folder, runtime)
    return stage


@pytest.mark.parametrize("make", [pairs, answers])
def test_activations_that_are_computed_again_give_the_same_weights(
    make: Any, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    plain = trained(make, inputs, tmp_path / "a", PLAIN)
    again = trained(make, inputs, tmp_path / "b", replace(PLAIN, checkpoint_activations=True))
    assert furthest(plain, again) == 0.0 and again.run_metrics == plain.run_metrics


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("make", [pairs, answers])
def test_compiled_blocks_give_the_same_weights(
    make: Any, checkpointed: bool, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    plain = trained(make, inputs, tmp_path / "a", PLAIN)
    switches = replace(PLAIN, compile=True, checkpoint_activations=checkpointed)
    assert furthest(plain, trained(make, inputs, tmp_path / "b", switches)) < 1e-4


def test_a_block_is_run_twice_where_its_activations_are_not_kept(inputs: dict[str, Artifact]) -> None:
    policy = Policy.load(inputs["policy"])
    calls: list[bool] = []
    for block in blocks_of(policy.model):
        block.forward = _counting(block.forward, calls)
    adapt_blocks(policy.model, BlockOptions(checkpointed=True))
    tokens = torch.tensor([[3, 4, 5, 6]])
    policy.model(input_ids=tokens, use_cache=False).logits.sum().backward()
    blocks = len(blocks_of(policy.model))
    assert len(calls) == 2 * blocks and all(p.grad is not None for p in policy.model.parameters())
    calls.clear()
    with torch.no_grad():
        policy.model(input_ids=tokens, use_cache=False)
    assert len(calls) == blocks


def test_sampling_is_not_touched(inputs: dict[str, Artifact]) -> None:
    prompts, sampling = [Prompt.user("what does ana like ?")] * 3, Sampling(max_new_tokens=5)
    policy = Policy.load(inputs["policy"])
    expected = generate(policy, prompts, sampling, 1)
    adapt_blocks(
        policy.model, BlockOptions(compiled=True, checkpointed=True)
    )  # compiling would take seconds, and is never begun
    assert generate(policy, prompts, sampling, 1) == expected


def _counting(plain: Any, calls: list[bool]) -> Any:
    def forward(*arguments: Any, **named: Any) -> Any:
        calls.append(True)
        return plain(*arguments, **named)

    return forward


def test_a_machine_without_a_compiler_is_told_so_before_anything_trains(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"runtime\.compile needs a C\+\+ compiler"):
        trained(pairs, inputs, tmp_path / "a", replace(PLAIN, compile=True))


def test_a_model_whose_blocks_are_not_known_is_named() -> None:
    class Blockless(nn.Module):
        base_model = nn.Linear(2, 2)

    with pytest.raises(ConfigError, match="Blockless: transformers does not say which modules are its blocks"):
        adapt_blocks(Blockless(), BlockOptions(compiled=True))  # type: ignore[arg-type]


def test_every_training_stage_logs_its_peak_memory(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    seen = trained(pairs, inputs, tmp_path, PLAIN).seen.values("train/peak_memory_mb")
    assert len(seen) >= 1 and 100 < seen[-1] <= peak_memory(torch.device("cpu")) < 10**5


def test_a_reference_is_brought_back_unless_it_shares_weights(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    plain = trained(answers, inputs, tmp_path / "a", PLAIN)
    offloaded = trained(answers, inputs, tmp_path / "b", replace(PLAIN, offload_reference=True))
    assert furthest(plain, offloaded) == 0.0
    assert offloaded.collector._offloads(offloaded.policy) and not plain.collector._offloads(plain.policy)
    shared = replace(offloaded.collector, reference=offloaded.policy)
    assert not shared._offloads(offloaded.policy)
