"""Adapters: they begin as their base, they alone are stored, and they are read with the base they were made on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import (
    ADAPTER,
    BATCH,
    adapted,
    disturb,
    logp,
    made,
    saved,
    settings,
    trainable_names,
)
from alignlab_reward_model import BradleyTerry, RewardModel
from model_folders import llama

from alignlab.artifact import ADAPTER_BASE, Artifact
from alignlab.errors import ConfigError, StoreError
from alignlab.policy import LoRA, Policy, low_rank
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact

ADAPTER_FILES = {ADAPTER_BASE, "adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def base(tmp_path: Path) -> Artifact:
    return tiny_policy_artifact(tmp_path / "base")


# ---- the adapter -----------------------------------------------------------------------------------------------------
def test_an_adapter_begins_as_its_base_and_is_all_that_is_trained(base: Artifact) -> None:
    policy = Policy.load(base)
    before = logp(policy)
    policy.add_adapter(ADAPTER, seed=1)
    assert torch.equal(logp(policy), before)
    layers = {f"self_attn.{x}_proj" for x in "qkvo"} | {f"mlp.{x}_proj" for x in ("gate", "up", "down")}
    own = {f"model.model.layers.0.{layer}.lora_{m}.own.weight" for layer in layers for m in "AB"}
    assert trainable_names(policy) == own
    disturb(policy)
    assert (logp(policy) - before).abs().max() > 0.1


def test_its_change_is_alpha_over_r_times_the_product(base: Artifact) -> None:
    policy = disturb(Policy.load(base).add_adapter(LoRA(r=4, alpha=6.0, target=("v_proj",)), seed=1))
    (name,) = low_rank.changes(policy.model)
    layer = policy.model.get_submodule(name)
    a, b = layer.lora_A["own"].weight, layer.lora_B["own"].weight
    assert a.shape[0] == 4 and name == "model.layers.0.self_attn.v_proj"
    plain = Policy.load(base)
    with torch.no_grad():
        plain.model.get_submodule(name).weight.add_(1.5 * b @ a)
    torch.testing.assert_close(logp(policy), logp(plain), atol=1e-5, rtol=0)


def test_the_seed_alone_decides_how_it_begins(base: Artifact) -> None:
    one, same, other = (Policy.load(base).add_adapter(ADAPTER, seed) for seed in (1, 1, 2))
    weights = [p.model.get_parameter("model.layers.0.mlp.up_proj.lora_A.own.weight") for p in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_dropout_is_of_the_own_adapter_while_training_alone(base: Artifact, tmp_path: Path) -> None:
    first = adapted(base, tmp_path / "first")
    policy = disturb(Policy.load(first).add_adapter(LoRA(r=2, dropout=0.5), seed=1))
    steady = logp(policy)
    assert torch.equal(logp(policy), steady), "evaluation has none"
    policy.train()
    with torch.no_grad():
        one, other = (policy.token_stats(BATCH, frozenset({"logp"})).logp for _ in range(2))
    assert not torch.equal(one, other)
    layers = [n for n, m in policy.model.named_modules() if isinstance(m, torch.nn.Dropout) and "lora" in n]
    assert layers and all(n.endswith(f".{low_rank.OWN}") for n in layers), "the earlier adapter is read as it is"
    saved(policy.eval(), tmp_path / "saved")
    torch.testing.assert_close(logp(Policy.load(tmp_path / "saved")), steady, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"r": 0}, "LoRA: r must be >= 1, got 0"),
        ({"alpha": 0.0}, "LoRA: alpha must be > 0"),
        ({"target": "q_proj"}, r"LoRA: target must be all-linear or a list of names.*write \[q_proj\]"),
        ({"target": ()}, "LoRA: target must be all-linear or a list"),
        ({"dropout": 1.0}, r"LoRA: dropout must be in \[0, 1\), got 1.0; it is a probability"),
    ],
)
def test_arguments_that_make_no_adapter_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRA(**arguments)


def test_a_target_must_fit_and_must_not_be_a_tied_head(tmp_path: Path) -> None:
    policy = Policy.load(llama(tmp_path))
    with pytest.raises(ConfigError, match=r"target 'qproj' fits no linear layer .*it has down_proj, .*q_proj"):
        policy.add_adapter(LoRA(target=("qproj",)), 0)
    with pytest.raises(ConfigError, match=r"target names the head, whose weight is the embedding's"):
        policy.add_adapter(LoRA(target=("lm_head", "q_proj")), 0)


def test_a_head_of_its_own_can_be_adapted(base: Artifact, tmp_path: Path) -> None:
    policy = disturb(Policy.load(base).add_adapter(LoRA(r=2, target=("lm_head",)), seed=1))
    assert (logp(policy) - logp(base)).abs().max() > 0.1
    torch.testing.assert_close(logp(saved(policy, tmp_path / "a")), logp(policy), atol=1e-5, rtol=0)


# ---- folders ---------------------------------------------------------------------------------------------------------
def test_a_folder_holds_the_adapter_alone_and_is_read_as_it_was(base: Artifact, tmp_path: Path) -> None:
    policy = disturb(Policy.load(base).add_adapter(ADAPTER, seed=1))
    stored = saved(policy, tmp_path / "a")
    assert {f.name for f in stored.path.iterdir()} == ADAPTER_FILES and stored.kind == "policy"
    again = Policy.load(stored)
    torch.testing.assert_close(logp(again), logp(policy), atol=1e-6, rtol=0)
    assert not trainable_names(again)
    assert json.loads((stored.path / ADAPTER_BASE).read_text())["fingerprint"] == base.fingerprint
    saved(again, tmp_path / "b")
    for name in ADAPTER_FILES:
        assert (tmp_path / "b" / name).read_bytes() == (stored.path / name).read_bytes()


def test_an_adapter_on_an_adapter_is_stored_as_one_on_the_same_base(base: Artifact, tmp_path: Path) -> None:
    first = adapted(base, tmp_path / "first", LoRA(r=2, alpha=5.0, target=("q_proj", "up_proj")))
    policy = Policy.load(first).add_adapter(LoRA(r=3, alpha=2.0, target=("up_proj", "down_proj")), seed=2)
    torch.testing.assert_close(logp(policy), logp(first), atol=1e-6, rtol=0)
    disturb(policy, seed=3)
    second = saved(policy, tmp_path / "second")
    assert json.loads((second.path / ADAPTER_BASE).read_text())["fingerprint"] == base.fingerprint
    ranks = {name.rpartition(".")[2]: change.r for name, change in low_rank.changes(Policy.load(second).model).items()}
    assert ranks == {"q_proj": 2, "up_proj": 5, "down_proj": 3}
    shutil.rmtree(first.path)  # it is needed no longer
    torch.testing.assert_close(logp(second), logp(policy), atol=1e-5, rtol=0)


def test_a_merged_adapter_is_a_whole_model(base: Artifact, tmp_path: Path) -> None:
    policy = disturb(Policy.load(base).add_adapter(ADAPTER, seed=1))
    before = logp(policy)
    merged = saved(policy.merge_adapter(), tmp_path / "whole")
    assert {n for n, _ in policy.named_parameters()} == {n for n, _ in Policy.load(base).named_parameters()}
    assert trainable_names(policy) and not ADAPTER_FILES & {f.name for f in merged.path.iterdir()}
    torch.testing.assert_close(logp(merged), before, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # PEFT asks transformers for it
def test_transformers_and_peft_read_the_folder(base: Artifact, tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    policy = Policy.load(adapted(base, tmp_path / "first", LoRA(r=2, alpha=5.0, target=("q_proj",))))
    disturb(policy.add_adapter(ADAPTER, seed=2), seed=3)
    stored = saved(policy, tmp_path / "a")
    tokens = BATCH.tokens[None, :5]
    theirs = (
        peft.AutoPeftModelForCausalLM.from_pretrained(stored.path),
        peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), stored.path),
        AutoModelForCausalLM.from_pretrained(saved(policy.merge_adapter(), tmp_path / "whole").path),
    )
    for model in theirs:
        with torch.no_grad():
            found = model(tokens).logits.log_softmax(-1)[0, :4].gather(1, tokens[0, 1:, None])[:, 0]
        torch.testing.assert_close(found, logp(stored)[1:5], atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # PEFT asks transformers for it
def test_a_reward_models_head_is_stored_with_its_adapter(base: Artifact, tmp_path: Path) -> None:
    import peft

    stage = RewardModel(objective=BradleyTerry(), **settings())
    stored = made(tmp_path / "rm", stage, {"policy": base, "preferences": tiny_preferences_artifact(tmp_path / "p")})
    assert stored.kind == "reward_model"
    again = Policy.load(stored)
    assert again.score_head is not None and again.score_head.attributes == ("reward",)
    with torch.no_grad():
        score = again.token_stats(BATCH, frozenset({"score"})).score
        theirs = peft.AutoPeftModelForSequenceClassification.from_pretrained(stored.path, num_labels=1)
        theirs.config.pad_token_id = 0
        found = theirs(BATCH.tokens[None, :5]).logits[0, 0]
    torch.testing.assert_close(score, stage.policy.token_stats(BATCH, frozenset({"score"})).score, atol=1e-5, rtol=0)
    torch.testing.assert_close(found, score[0], atol=1e-5, rtol=0)
    whole = saved(again.merge_adapter(), tmp_path / "whole")
    assert whole.kind == "reward_model"
    with torch.no_grad():
        merged = Policy.load(whole).token_stats(BATCH, frozenset({"score"})).score
    torch.testing.assert_close(merged, score, atol=1e-5, rtol=0)


def spoil(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], None]:
    def harm(base: Path, folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return harm


def another_adapter(base: Path, folder: Path) -> None:
    """In place of the base."""
    own = json.loads((folder / ADAPTER_BASE).read_text())
    shutil.rmtree(base)
    shutil.copytree(folder, base)
    (folder / ADAPTER_BASE).write_text(json.dumps({**own, "fingerprint": Artifact.open(base).fingerprint}))


def cut(base: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, folder / "adapter_model.safetensors")


def resized(base: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name][:, :3].contiguous()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda base, _: (base / "note").write_text("new"), r"is an adapter of the model with .*it has changed since"),
        (lambda base, _: shutil.rmtree(base), "the model that it belongs to is missing"),
        (another_adapter, "which is an adapter itself"),
        (cut, r"does not hold the pairs of an adapter \(.*lora_A"),
        (resized, r"the adapter of model\.layers\.0\.mlp\.down_proj is .*, and the layer of its base is \(16, 32\)"),
        (lambda _, folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 99), "is missing or damaged"),
        (lambda _, folder: (folder / "adapter_model.safetensors").unlink(), "is missing or damaged"),
        (spoil("adapter_config.json", lambda c: c.update(use_dora=True)), "use_dora is True; only plain LoRA is read"),
        (spoil("adapter_config.json", lambda c: c.update(peft_type="IA3")), "peft_type is 'IA3'; only plain LoRA"),
        (spoil("adapter_config.json", lambda c: c.pop("lora_alpha")), "the scale of .* must be above 0, got None"),
        (spoil("adapter_config.json", lambda c: c.update(lora_alpha="16")), "must be above 0, got '16'"),
        (spoil("adapter_config.json", lambda c: c.update(lora_alpha=0)), "must be above 0, got 0"),
        (spoil(ADAPTER_BASE, lambda c: c.update(attributes=["reward"])), r"names the attributes \['reward'\]"),
        (spoil(ADAPTER_BASE, lambda c: c.clear()), "the model that it belongs to is missing"),
    ],
)
def test_an_adapter_that_is_not_what_it_says_is_refused(
    harm: Callable[[Path, Path], Any], message: str, base: Artifact, tmp_path: Path
) -> None:
    stored = adapted(base, tmp_path / "a")
    harm(base.path, stored.path)
    with pytest.raises(StoreError, match=message) as error:
        Policy.load(stored)
    assert str(stored.path) in str(error.value) and "\n" not in str(error.value)


def test_pickled_weights_are_not_read(base: Artifact, tmp_path: Path) -> None:
    stored = adapted(base, tmp_path / "a")
    (stored.path / "adapter_model.safetensors").rename(stored.path / "adapter_model.bin")
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors is missing"):
        Policy.load(stored)


def test_a_store_that_was_moved_finds_its_bases(tmp_path: Path) -> None:
    objects = tmp_path / "store" / "objects"
    base = tiny_policy_artifact(objects / "base")
    base.path.rename(objects / base.fingerprint[:32])
    stored = adapted(Artifact.open(objects / base.fingerprint[:32]), objects / "adapter")
    before = logp(stored)
    (tmp_path / "store").rename(tmp_path / "moved")
    assert torch.equal(logp(tmp_path / "moved" / "objects" / "adapter"), before)


def test_without_peft_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, base: Artifact, tmp_path: Path) -> None:
    stored = adapted(base, tmp_path / "a")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"LoRA: adapters need PEFT; install it with pip install 'alignlab\[lora\]'"):
        LoRA()
    with pytest.raises(ConfigError, match=r"adapters need PEFT"):
        Policy.load(stored)
