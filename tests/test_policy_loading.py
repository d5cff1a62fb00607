"""Weights: every one of a model comes from its folder, and every one in the folder is used; else one message."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from model_folders import edit, llama, rewrite, save
from torch import Tensor
from transformers import BertConfig, GPTJConfig, LlamaForSequenceClassification, T5Config

from alignlab.batch import TokenBatch
from alignlab.errors import ConfigError, StoreError
from alignlab.policy import Policy

Tensors = dict[str, Tensor]
LAYER = "model.layers.1."


def refused(folder: Path, match: str) -> str:
    """The message with which a folder is refused: one line that names it."""
    with pytest.raises(StoreError, match=match) as error:
        Policy.load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


# ---- missing and unused ----------------------------------------------------------------------------------------------
def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    rewrite(llama(tmp_path), lambda t: {k: v for k, v in t.items() if not k.startswith(LAYER)})
    missing = rf"9 of 21 tensors are missing \({LAYER}input_layernorm\.weight, .*\.\.\.\); copy the whole"
    assert refused(tmp_path, missing)


def test_weights_of_a_larger_model_are_named(tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update(num_hidden_layers=1))
    message = refused(tmp_path, rf"9 are not used \({LAYER}")
    assert "are missing" not in message and message.endswith(
        "give the config.json that these weights were trained with"
    )


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    ("prefix", "hint"),
    [
        ("_orig_mod.", "as torch.compile writes them"),
        ("module.", "as DDP and DataParallel write them"),
        ("base_model.model.", "as PEFT writes them"),
        ("policy.net.", "as a wrapper writes them"),
    ],
)
def test_a_wrappers_prefix_is_named_with_what_to_do(prefix: str, hint: str, tie: bool, tmp_path: Path) -> None:
    rewrite(llama(tmp_path, tie), lambda t: {prefix + k: v for k, v in t.items()})
    assert refused(tmp_path, f"tensors are missing .* are not used .* the unused names begin with '{prefix}', {hint}")


def test_peft_names_inside_a_model_are_known(tmp_path: Path) -> None:
    def adapt(tensors: Tensors) -> Tensors:
        name = "model.layers.0.self_attn.q_proj."
        weight = tensors.pop(f"{name}weight")
        return {**tensors, f"{name}base_layer.weight": weight, f"{name}lora_A.default.weight": weight[:2]}

    rewrite(llama(tmp_path), adapt)
    assert refused(tmp_path, r"1 of 21 tensors are missing .* 2 are not used .* PEFT's: merge the adapter")


def test_what_may_be_missing_or_unused_is_not_an_error(tmp_path: Path) -> None:
    """A tied head, which is stored once; rotary frequencies, which old checkpoints store and new ones compute."""
    folder = llama(tmp_path)
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")
    rewrite(folder, lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    policy = Policy.load(folder)
    assert policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight
    untied = llama(tmp_path / "untied", tie=False)
    rewrite(untied, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    assert refused(untied, r"1 of 21 tensors are missing \(lm_head\.weight\)")


# ---- another model than the configuration says -----------------------------------------------------------------------
@pytest.mark.parametrize(("key", "value"), [("vocab_size", 446), ("intermediate_size", 48), ("hidden_size", 32)])
def test_another_shape_is_named(key: str, value: int, tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update({key: value}))
    message = refused(tmp_path, r"config\.json gives another shape for \d+ of its tensors: .* is \(.*\), not \(")
    assert "report" not in message


COUNTS = (
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers depth num_blocks "
    "conf_num_hidden_layers num_nextn_predict_layers num_local_experts moe_num_experts n_routed_experts"
)


@pytest.mark.parametrize("count", [10**7, 10**12])
def test_a_model_of_millions_of_parts_is_refused_by_name(count: int, tmp_path: Path) -> None:
    file = llama(tmp_path) / "config.json"
    before = file.read_text()
    for name in COUNTS.split():
        for change in ({name: count}, {"text_config": {name: count}}):
            edit(file, lambda c, change=change: c.update(change))  # type: ignore[misc]
            assert refused(tmp_path, rf"config\.json: {name} is {count}, but its weights are 20 tensors")
            file.write_text(before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer_types", ["full_attention"] * 10**5),
        ("hybrid_override_pattern", "M" * 10**6),
        ("attention_types", [[["global", "local"], 10**9]]),
    ],
)
def test_a_list_of_millions_of_layers_is_refused_by_name(name: str, value: object, tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update({name: value}))
    assert refused(tmp_path, rf"config\.json: {name} describes 10+ layers, but its weights are 20 tensors")


def test_a_model_that_is_far_larger_than_its_weights_is_not_built(tmp_path: Path) -> None:
    rewrite(llama(tmp_path, tie=False), lambda t: {k: v for k, v in t.items() if "embed" not in k and "head" not in k})
    edit(tmp_path / "config.json", lambda c: c.update(vocab_size=10**12))
    assert refused(tmp_path, r"config\.json describes parameters of 320{8}5200 numbers, and the weights have 5200")


def test_buffers_of_any_size_are_not_made(tmp_path: Path) -> None:
    gptj = GPTJConfig(vocab_size=448, n_embd=16, n_layer=1, n_head=2, n_positions=64, rotary_dim=4)
    edit(save(tmp_path, gptj) / "config.json", lambda c: c.update(n_positions=10**9))
    assert refused(tmp_path, r"config\.json describes buffers of \d{10,} numbers, and the weights have \d+")


def test_what_is_no_causal_language_model_is_refused(tmp_path: Path) -> None:
    llama(tmp_path / "t5")
    T5Config(d_model=16, num_layers=1).save_pretrained(tmp_path / "t5")
    assert refused(tmp_path / "t5", "type 't5' is not a causal language model")
    bert = BertConfig(vocab_size=448, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ConfigError, match=r"BertLMHeadModel: its logits (depend on later tokens|are not its head)"):
        Policy.load(save(tmp_path / "bert", bert))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    rewrite(llama(tmp_path), lambda t: {k: torch.full_like(v, value) if "norm" in k else v for k, v in t.items()})
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM: its logits are not finite numbers.*float32"):
        Policy.load(tmp_path)


# ---- classifiers -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("labels", [1, 3])
def test_a_classifier_without_a_language_models_head_scores(labels: int, tmp_path: Path) -> None:
    folder = llama(tmp_path, tie=False)
    config = Policy.load(folder).model.config
    config.num_labels = labels
    torch.manual_seed(0)
    theirs = LlamaForSequenceClassification(config).eval()
    theirs.save_pretrained(folder)
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")
    if labels > 1:
        assert refused(folder, r"score\.weight has the shape \(3, 16\); a reward model's is \(1, width\)")
        return
    policy = Policy.load(folder)
    score = policy.token_stats(TokenBatch.of([[1, 2, 3]], [[False, True, True]]), frozenset({"score"})).score
    torch.testing.assert_close(score, theirs(torch.tensor([[1, 2, 3]])).logits[0], rtol=1e-5, atol=1e-6)
    head: Any = policy.model.get_output_embeddings()
    assert not head.weight.any(), "nothing random is published with it"
