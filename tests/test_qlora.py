"""Adapters on a base that is held in 4 bits; by what stands for bitsandbytes, and on a GPU by bitsandbytes itself."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import BATCH, adapted, disturb, dpo, logp, made, sft, start
from regimes import Counted, killed_before, online, run
from test_adapters_asked import dpo as dpo_config
from test_training_reference import shared_context

from alignlab.artifact import Artifact
from alignlab.batch import Batch
from alignlab.config.check import parse
from alignlab.errors import ConfigError
from alignlab.pipeline.plan import plan
from alignlab.policy import LoRA, Policy, QLoRA, frozen_copy, gpu, low_rank
from alignlab.policy.frozen import trainable
from alignlab.runtime import Runtime
from alignlab.testing import tiny_policy_artifact

OWN = QLoRA(r=2, alpha=3.0)


@pytest.fixture
def quantizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, importable as bitsandbytes, on a machine that has a GPU."""
    from peft import import_utils

    import_utils.is_bnb_available(), import_utils.is_bnb_4bit_available()  # remembered: there is none
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "fake_quantizer"))
    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    import bitsandbytes

    bitsandbytes.ROUNDED.clear()
    yield bitsandbytes
    del sys.modules["bitsandbytes"]


@pytest.fixture
def base(tmp_path: Path) -> Artifact:
    return tiny_policy_artifact(tmp_path / "base")


def held(artifact: Artifact, dtype: torch.dtype = torch.float32) -> Policy:
    """The artifact's policy, with an adapter on weights of 4 bits."""
    return trainable(Policy.load(artifact, dtype), OWN, seed=1)


def test_all_linear_layers_but_the_head_are_rounded(quantizer: Any, base: Artifact) -> None:
    policy = held(base)
    rounded = {n for n, p in policy.named_parameters() if p.dtype == torch.uint8}
    layers = {f"self_attn.{x}_proj" for x in "qkvo"} | {f"mlp.{x}_proj" for x in ("gate", "up", "down")}
    assert rounded == {f"model.model.layers.0.{layer}.base_layer.weight" for layer in layers}
    assert len(quantizer.ROUNDED) == 7
    far = (logp(policy) - logp(base)).abs().max()
    assert 1e-4 < far < 1, "it is another model, and not by much"
    assert {n for n, p in policy.named_parameters() if p.requires_grad} == {
        f"model.model.layers.0.{layer}.lora_{m}.own.weight" for layer in layers for m in "AB"
    }


def test_layers_without_an_adapter_and_below_an_earlier_one_are_rounded_too(
    quantizer: Any, base: Artifact, tmp_path: Path
) -> None:
    first = adapted(base, tmp_path / "first")
    policy = trainable(Policy.load(first), QLoRA(r=2, target=("q_proj",)), seed=1)
    assert len(quantizer.ROUNDED) == 7
    assert (logp(policy) - logp(first)).abs().max() < 1


def test_the_adapter_is_published_for_the_base_as_it_was(quantizer: Any, base: Artifact, tmp_path: Path) -> None:
    policy = disturb(held(base))
    folder = tmp_path / "saved"
    folder.mkdir()
    policy.save(folder)
    plain = disturb(Policy.load(base).add_adapter(LoRA(r=2, alpha=3.0), seed=1))
    torch.testing.assert_close(logp(folder), logp(plain), atol=1e-5, rtol=0)


def test_its_weights_are_whole_for_other_engines(quantizer: Any, base: Artifact) -> None:
    policy = disturb(held(base))
    model = Policy.load(base).model
    weights = dict(low_rank.merged_weights(policy.model))
    assert weights.keys() == {name for name, _ in model.named_parameters()}
    model.load_state_dict(weights, strict=False)
    torch.testing.assert_close(logp(Policy(model, policy.tokenizer)), logp(policy), atol=1e-5, rtol=0)


def test_the_reference_is_the_rounded_base_and_shares_it(quantizer: Any, base: Artifact) -> None:
    policy = held(base)
    before = logp(policy)
    reference = frozen_copy(disturb(policy))
    assert torch.equal(logp(reference), before)
    assert {p.data_ptr() for p in reference.parameters()} <= {p.data_ptr() for p in policy.parameters()}


def test_its_answers_are_not_those_of_the_base_in_full_precision(
    quantizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, inputs = Counted(monkeypatch), start(tmp_path)

    def first(adapter: LoRA | None) -> Batch:
        stage = dpo(adapter=adapter)
        stage.prepare(inputs, shared_context(tmp_path))
        return stage.batch_at(0)

    whole, rounded, again = first(LoRA(r=2)), first(OWN), first(QLoRA(r=4))
    assert len(counted.measured) == 4, "training and held-out rows, by either base"
    assert not torch.allclose(whole.reference_logp, rounded.reference_logp, atol=1e-4)
    assert torch.equal(rounded.reference_logp, again.reference_logp)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_it_trains_and_only_the_adapter_moves(quantizer: Any, precision: Any, tmp_path: Path) -> None:
    inputs = start(tmp_path)
    stage = dpo(adapter=OWN)
    published = made(tmp_path / "dpo", stage, inputs, precision=precision)
    again = held(inputs["policy"], Runtime(precision=precision).dtype)
    fresh = {n: p for n, p in again.named_parameters() if p.dtype == torch.uint8}
    trained = dict(stage.policy.named_parameters())
    assert fresh and all(torch.equal(p, trained[n]) for n, p in fresh.items())
    assert any(bool(p.any()) for n, p in trained.items() if "lora_B" in n)
    assert (logp(published) - logp(inputs["policy"])).abs().max() > 1e-3


def test_killed_it_continues_to_the_same_bits(quantizer: Any, tmp_path: Path) -> None:
    from adapter_cases import loop

    inputs = start(tmp_path)

    def stage() -> Any:
        return dpo(adapter=OWN, loop=loop(save_every=1))

    whole, resumed = stage(), stage()
    run(whole, inputs, tmp_path / "whole")
    killed_before(3, stage(), inputs, tmp_path / "killed")
    checkpoint = torch.load(next((tmp_path / "killed" / "work").glob("last*.ckpt")), weights_only=True)
    assert all("lora" in name or "score" in name for name in checkpoint["state_dict"]), "the base is in the input"
    run(resumed, inputs, tmp_path / "killed")
    one, other = (dict(s.policy.named_parameters()) for s in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_fine_tuning_and_online_methods_take_it(quantizer: Any, tmp_path: Path) -> None:
    from alignlab_grpo import GroupRelative, Reinforce

    from alignlab.training import PolicyGradientStage

    inputs = start(tmp_path)
    tuned = made(tmp_path / "sft", sft(adapter=OWN), inputs)
    stage = online(PolicyGradientStage, objective=Reinforce(), advantage=GroupRelative(), adapter=OWN, loop_steps=2)
    metrics, _ = run(stage, {"policy": tuned}, tmp_path / "online")
    assert metrics["steps"] == 2


# ---- what is missing -------------------------------------------------------------------------------------------------
def asked(**runtime: Any) -> None:
    node = dpo_config("nowhere", "nowhere")
    node["adapter"] = {"_target_": "alignlab.policy.QLoRA"}
    plan({"dpo": parse(node, "pipeline.dpo")}, Runtime(**runtime))


def test_a_missing_package_and_gpu_are_one_message_before_anything_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    find = gpu.importlib.util.find_spec
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda n, *p: None if n == "bitsandbytes" else find(n, *p))
    with pytest.raises(ConfigError, match=r"adapter=qlora: needs bitsandbytes, .*'alignlab\[qlora\]'.* and a CUDA GPU"):
        asked(accelerator="cpu")


@pytest.mark.usefixtures("quantizer")
def test_a_processor_is_refused_before_anything_trains() -> None:
    with pytest.raises(ConfigError, match=r"needs a CUDA GPU, which is not there or not used \(runtime=gpu\)"):
        asked(accelerator="cpu")


def test_a_base_of_4_bits_is_not_split(quantizer: Any) -> None:
    stage = dpo(adapter=OWN)
    with pytest.raises(ConfigError, match=r"runtime=fsdp2 does not split .* 4 bits; use runtime=ddp, or adapter=lora"):
        stage.check_runtime(Runtime("gpu", devices=2, strategy="fsdp2"))
    stage.check_runtime(Runtime("gpu", devices=2, strategy="ddp"))


def test_a_model_without_linear_layers_is_refused(quantizer: Any, tmp_path: Path) -> None:
    import transformers

    config = transformers.GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=30)
    with pytest.raises(ConfigError, match="no linear layers that can be held in 4 bits; use adapter=lora"):
        OWN.hold(transformers.GPT2LMHeadModel(config))


# ---- bitsandbytes itself ---------------------------------------------------------------------------------------------
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_on_a_gpu_by_bitsandbytes(precision: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    inputs = start(tmp_path)
    stage = dpo(adapter=OWN)
    published = made(tmp_path / "dpo", stage, inputs, accelerator="gpu", precision=precision)
    with torch.no_grad():
        batch = BATCH.to(stage.policy.device)
        trained = stage.policy.eval().token_stats(batch, frozenset({"logp"})).logp.cpu()
    assert any(p.dtype == torch.uint8 for p in stage.policy.parameters())
    assert (trained - logp(published)).abs().max() < 1.0, "the base in full precision is not far from the rounded one"
