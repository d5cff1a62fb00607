"""Asking for an adapter: one written as part of a model, and a target that no layer has, before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from adapter_cases import adapted

from alignlab.cli import main
from alignlab.config.check import parse
from alignlab.errors import ConfigError
from alignlab.pipeline.plan import Step, plan
from alignlab.pipeline.run_folder import RunFolder
from alignlab.pipeline.runner import Runner
from alignlab.pipeline.store import Store
from alignlab.policy.adapter_files import read_adapter
from alignlab.runtime import Runtime
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact


# ---- as other programs write it --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (
            "model.lora={r: 16, alpha: 32, target: all-linear}",
            "adapter.r=16 adapter.alpha=32 adapter.target=all-linear",
        ),
        ("+model.lora={r: 4, target: [q_proj, v_proj]}", "adapter.r=4 adapter.target=[q_proj,v_proj]"),
        ("model.lora.r=8", "adapter.r=8"),
        ("model.lora=true", "adapter.r=16 adapter.alpha=32"),
    ],
)
def test_an_adapter_of_a_model_is_told_how_it_is_written(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "experiment=smoke", typed]) == 1
    assert f"an adapter belongs to the stages that train it: adapter=lora {meant}\n" in capsys.readouterr().err


def test_so_it_is_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"model\.lora: Llama takes no lora; .*adapter=lora adapter\.r=16"):
        parse({"_target_": "alignlab.policy.Llama", "lora": {"r": 4}}, "model")


# ---- layers that are not there ---------------------------------------------------------------------------------------
def lora(*target: str) -> dict[str, Any]:
    return {"_target_": "alignlab.policy.LoRA", "r": 2, "target": list(target)}


def trained(kind: str, objective: str, **changes: Any) -> dict[str, Any]:
    schedule = {"_target_": "alignlab.training.Constant"}
    return {
        "_target_": kind,
        "objective": {"_target_": objective},
        "optimizer": {"_target_": "alignlab.training.AdamW", "schedule": schedule},
        "loop": {"_target_": "alignlab.training.Loop", "steps": 1, "batch_size": 2},
        **changes,
    }


def dpo(policy: Path | str, preferences: Path | str, *target: str) -> dict[str, Any]:
    inputs = {"policy": str(policy), "preferences": str(preferences)}
    return trained("alignlab.training.PreferenceStage", "alignlab_dpo.DPO", inputs=inputs, adapter=lora(*target))


def pipeline(preferences: Path, *target: str) -> dict[str, Any]:
    """A model from scratch, fine-tuned, then DPO with an adapter."""
    data = {"_target_": "alignlab.data.world.World", "entities": 8, "unknown": 2, "relations": 2}
    data |= {"training_documents": 60, "training_instructions": 40}
    made = {
        "data": data,
        "model": {"_target_": "alignlab.policy.Llama", "layers": 1, "width": 16, "heads": 2, "feedforward": 16},
        "tokenizer": {"_target_": "alignlab.data.tokenizer.TrainTokenizer"},
    }
    sft = trained("alignlab.training.AnswerStage", "alignlab_sft.AnswerNLL", data=data, inputs={"policy": "pretrain"})
    return {
        "pretrain": trained("alignlab_pretrain.Pretrain", "alignlab_pretrain.CausalLM", **made),
        "sft": sft,
        "dpo": dpo("sft", preferences, *target),
    }


def runner(stages: dict[str, Any], folder: Path) -> Runner:
    runtime = Runtime("cpu", threads=1)
    steps: list[Step] = plan({name: parse(node, f"pipeline.{name}") for name, node in stages.items()}, runtime)
    return Runner(steps, Store(folder / "store"), RunFolder(folder / "run"), runtime)


MESSAGE = (
    r"pipeline\.dpo: LoRA: target 'query' fits no linear layer of the model; it has down_proj, gate_proj, k_proj, "
    r"lm_head, o_proj, q_proj, up_proj, v_proj"
)


def test_a_target_that_a_folders_model_lacks_is_found_before_anything_trains(tmp_path: Path) -> None:
    policy = tiny_policy_artifact(tmp_path / "policy")
    preferences = tiny_preferences_artifact(tmp_path / "preferences").path
    adapter = adapted(policy, tmp_path / "adapter").path
    for given in (policy.path, adapter):
        with pytest.raises(ConfigError, match=MESSAGE):
            runner({"dpo": dpo(given, preferences, "q_proj", "query")}, tmp_path).run()
    assert not (tmp_path / "store/objects").exists()


def test_so_it_is_where_a_stage_will_make_the_model(tmp_path: Path) -> None:
    preferences = tiny_preferences_artifact(tmp_path / "preferences").path
    with pytest.raises(ConfigError, match=MESSAGE):
        runner(pipeline(preferences, "query"), tmp_path).run()
    assert not (tmp_path / "store/objects").exists(), "pretraining has not begun"


def test_so_it_is_where_the_store_has_it(tmp_path: Path) -> None:
    preferences = tiny_preferences_artifact(tmp_path / "preferences").path
    stages = pipeline(preferences, "q_proj")
    del stages["dpo"], stages["sft"]
    runner(stages, tmp_path).run()
    with pytest.raises(ConfigError, match=MESSAGE):
        runner(pipeline(preferences, "query"), tmp_path).run()


def test_a_target_that_fits_trains(tmp_path: Path) -> None:
    policy = tiny_policy_artifact(tmp_path / "policy").path
    preferences = tiny_preferences_artifact(tmp_path / "preferences").path
    ran = runner({"dpo": dpo(policy, preferences, "q_proj", "v_proj")}, tmp_path)
    ran.run()
    layers = read_adapter(ran.store.path(ran.steps[0].fingerprint)).changes
    assert sorted(name.rpartition(".")[2] for name in layers) == ["q_proj", "v_proj"]
