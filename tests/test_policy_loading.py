"""Weights: every one of a model comes from its folder, and every one in the folder is used; else one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from model_folders import SIZE, edit, llama, rewrite, save
from torch import Tensor
from transformers import BertConfig, GPT2Config, GPTJConfig, LlamaForSequenceClassification, MambaConfig, T5Config

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError, StoreError
from alignlab.policy import Policy, Sampling, complete, generate

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
    refused(tmp_path, rf"9 of 21 tensors are missing \({LAYER}input_layernorm\.weight, .*\.\.\.\); copy the whole")


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
    refused(tmp_path, f"tensors are missing .* are not used .* the unused names begin with '{prefix}', {hint}")


def test_peft_names_inside_a_model_are_known(tmp_path: Path) -> None:
    def adapt(tensors: Tensors) -> Tensors:
        name = "model.layers.0.self_attn.q_proj."
        weight = tensors.pop(f"{name}weight")
        return {**tensors, f"{name}base_layer.weight": weight, f"{name}lora_A.default.weight": weight[:2]}

    rewrite(llama(tmp_path), adapt)
    refused(tmp_path, r"1 of 21 tensors are missing .* 2 are not used .* PEFT's: merge the adapter")


def test_what_may_be_missing_or_unused_is_not_an_error(tmp_path: Path) -> None:
    """A tied head, which is stored once; rotary frequencies, which old checkpoints store and new ones compute."""
    folder = llama(tmp_path)
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")
    rewrite(folder, lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    policy = Policy.load(folder)
    assert policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight
    untied = llama(tmp_path / "untied", tie=False)
    rewrite(untied, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    refused(untied, r"1 of 21 tensors are missing \(lm_head\.weight\)")


# ---- another model than the configuration says -----------------------------------------------------------------------
@pytest.mark.parametrize(("key", "value"), [("vocab_size", 446), ("intermediate_size", 48), ("hidden_size", 32)])
def test_another_shape_is_named(key: str, value: int, tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update({key: value}))
    message = refused(tmp_path, r"config\.json gives another shape for \d+ of its tensors: .* is \(.*\), not \(")
    assert "report" not in message


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**7},
        {"num_hidden_layers": 10**12},
        {"text_config": {"num_hidden_layers": 10**7}},
        {"n_routed_experts": 10**9},
    ],
)
def test_a_model_of_millions_of_parts_is_refused_by_name(change: dict[str, Any], tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update(change))
    refused(tmp_path, r"config\.json: (num_hidden_layers|n_routed_experts) is 10+, but its weights are 20 tensors")


def test_a_model_that_is_far_larger_than_its_weights_is_not_built(tmp_path: Path) -> None:
    rewrite(llama(tmp_path, tie=False), lambda t: {k: v for k, v in t.items() if "embed" not in k and "head" not in k})
    edit(tmp_path / "config.json", lambda c: c.update(vocab_size=10**12))
    refused(tmp_path, r"config\.json describes parameters of 320{8}5200 numbers, and the weights have 5200")


def test_buffers_of_any_size_are_not_made(tmp_path: Path) -> None:
    gptj = GPTJConfig(vocab_size=448, n_embd=16, n_layer=1, n_head=2, n_positions=64, rotary_dim=4)
    edit(save(tmp_path, gptj) / "config.json", lambda c: c.update(n_positions=10**9))
    refused(tmp_path, r"config\.json describes buffers of \d{10,} numbers, and the weights have \d+")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply|cannot be read"),
        ('{"a": ' * 600 + "1" + "}" * 600, "."),
        ("[]", "must hold a JSON object, found list"),
        ('{"model_type": "no_such_model"}', "config.json cannot be loaded.*no_such_model"),
        ('{"model_type": "llama", "hidden_size": "many"}', "cannot be loaded"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "cannot be loaded"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_malformed_configuration_is_one_message(content: str | bytes, why: str, tmp_path: Path) -> None:
    (llama(tmp_path) / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    refused(tmp_path, why)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", '{"architectures": 1}', '{"architectures": [1]}', "\0"])
@pytest.mark.parametrize("file", ["config.json", "manifest.json"])
def test_an_artifact_with_a_malformed_file_is_one_message(file: str, content: str, tmp_path: Path) -> None:
    (llama(tmp_path) / file).write_text(content)
    with pytest.raises(StoreError, match=f"{file} (cannot be read|is no artifact's manifest)"):
        Artifact.open(tmp_path)


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_any_other_malformed_file_is_one_message(file: str, content: str, tmp_path: Path) -> None:
    (llama(tmp_path) / file).write_text(content)
    refused(tmp_path, r"(model|tokenizer) cannot be loaded|cannot be read|must hold a JSON object")


def test_what_is_no_causal_language_model_is_refused(tmp_path: Path) -> None:
    llama(tmp_path / "t5")
    T5Config(d_model=16, num_layers=1).save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", "type 't5' is not a causal language model")
    bert = BertConfig(vocab_size=448, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ConfigError, match=r"BertLMHeadModel: its logits (depend on later tokens|are not its head)"):
        Policy.load(save(tmp_path / "bert", bert))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    rewrite(llama(tmp_path), lambda t: {k: torch.full_like(v, value) if "norm" in k else v for k, v in t.items()})
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM: its logits are not finite numbers.*float32"):
        Policy.load(tmp_path)


# ---- what is in the folder instead -----------------------------------------------------------------------------------
def test_an_adapter_is_named_beside_a_model_and_without_one(tmp_path: Path) -> None:
    (llama(tmp_path) / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc", "peft_type": "LORA"}')
    refused(tmp_path, r"an adapter next to a model \(adapter_config\.json\).*merge_and_unload")
    (tmp_path / "config.json").unlink()
    refused(tmp_path, r"an adapter without its base model.*merge_and_unload")
    with pytest.raises(StoreError, match=r"an adapter without its base model.*merge_and_unload"):
        Artifact.open(tmp_path)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_quantised_weights_are_named(method: str, tmp_path: Path) -> None:
    edit(llama(tmp_path) / "config.json", lambda c: c.update(quantization_config={"quant_method": method}))
    refused(tmp_path, rf"quantised weights \({method}\), which cannot be trained.*dequantize")


def sharded(folder: Path) -> Path:
    from transformers import LlamaConfig

    return save(folder, LlamaConfig(**SIZE), max_shard_size="16KB")


def test_shards_are_read_from_their_own_folder_only(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    assert Policy.load(folder)
    index = folder / "model.safetensors.index.json"
    name = sorted(set(json.loads(index.read_text())["weight_map"].values()))[0]
    for outside in (f"../other/{name}", str(tmp_path / "other" / name), f"sub/{name}", "..", f"..\\{name}"):
        target = folder / outside
        target.parent.mkdir(exist_ok=True, parents=True)
        if not target.exists():
            target.write_bytes((folder / name).read_bytes())

        def point(content: dict[str, Any], to: str = outside) -> None:
            first = next(iter(content["weight_map"]))
            content["weight_map"][first] = to

        before = index.read_text()
        edit(index, point)
        refused(folder, "which is not a file of its own folder")
        index.write_text(before)
    (folder / name).unlink()
    refused(folder, "which is missing; copy the folder again")
    index.write_text("{}")
    refused(folder, "has no weight_map")


def test_pickled_and_damaged_weights_are_not_read(tmp_path: Path) -> None:
    weights = llama(tmp_path) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-7])
    refused(tmp_path, r"model\.safetensors is damaged")
    weights.write_bytes(b"\xff" * 64)
    refused(tmp_path, r"model\.safetensors is damaged")
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(tmp_path, r"model\.safetensors is a Git LFS pointer .*git lfs pull")
    weights.unlink()
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "holds no safetensors weights.*pickled weights are not read")


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
        refused(folder, r"score\.weight has the shape \(3, 16\); a reward model's is \(1, width\)")
        return
    policy = Policy.load(folder)
    score = policy.token_stats(TokenBatch.of([[1, 2, 3]], [[False, True, True]]), frozenset({"score"})).score
    torch.testing.assert_close(score, theirs(torch.tensor([[1, 2, 3]])).logits[0], rtol=1e-5, atol=1e-6)
    head: Any = policy.model.get_output_embeddings()
    assert not head.weight.any(), "nothing random is published with it"


# ---- sampling --------------------------------------------------------------------------------------------------------
def test_a_model_without_a_cache_of_keys_and_values_trains_and_says_why_it_cannot_be_sampled_from(
    tmp_path: Path,
) -> None:
    config = MambaConfig(vocab_size=448, hidden_size=16, state_size=4, num_hidden_layers=1, pad_token_id=0)
    policy = Policy.load(save(tmp_path, config))
    batch = TokenBatch.of([[1, 2, 3], [4, 5]], [[False, True, True], [False, True]])
    assert bool(policy.token_stats(batch, frozenset({"logp"})).logp.isfinite().all())
    assert "MambaForCausalLM cannot be sampled from" in policy.sampling_obstacle()
    for sample in (
        lambda: generate(policy, [Prompt.user("cat")], Sampling(), seed=0),
        lambda: complete(policy, ["cat"], Sampling(), seed=0),
    ):
        with pytest.raises(ConfigError, match="generate: MambaForCausalLM cannot be sampled from"):
            sample()
    policy.save(tmp_path / "again")
    assert Policy.load(tmp_path / "again")


def test_a_model_whose_answers_depend_on_padding_says_so(tmp_path: Path) -> None:
    policy = Policy.load(llama(tmp_path))
    assert policy.sampling_obstacle() == ""

    class Padded(type(policy.model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            kwargs.pop("position_ids", None)
            kwargs.pop("attention_mask", None)
            return super().forward(*args, **kwargs)

    policy.model.__class__ = Padded
    other = Policy(policy.model, policy.tokenizer)
    assert "gives other probabilities with a cache and padding than without" in other.sampling_obstacle()


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "llama"), (torch.float32, "gpt2")])
def test_what_can_be_sampled_from_has_no_obstacle(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    gpt2 = GPT2Config(vocab_size=448, n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    folder = llama(tmp_path) if name == "llama" else save(tmp_path, gpt2)
    assert Policy.load(folder, dtype).sampling_obstacle() == ""


# ---- precision -------------------------------------------------------------------------------------------------------
def buffers(policy: Policy) -> Tensors:
    return {name: buffer for name, buffer in policy.named_buffers() if buffer.is_floating_point()}


@pytest.mark.parametrize(
    "make", [lambda f: Policy.load(f, torch.bfloat16), lambda f: Policy.load(f).cast(torch.bfloat16)]
)
def test_rotary_frequencies_stay_in_float32_when_weights_are_cast(
    make: Callable[[Path], Policy], tmp_path: Path
) -> None:
    policy, full = make(llama(tmp_path)), Policy.load(tmp_path)
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    assert buffers(full) and buffers(policy).keys() == buffers(full).keys()
    for name, buffer in buffers(full).items():
        assert buffers(policy)[name].dtype == torch.float32 and torch.equal(buffers(policy)[name], buffer)
    assert policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight


def test_a_policy_that_is_cast_is_the_one_that_is_loaded_in_that_precision(tmp_path: Path) -> None:
    loaded = Policy.load(llama(tmp_path), torch.bfloat16)
    cast = Policy.load(tmp_path).cast(torch.bfloat16)
    batch = TokenBatch.of([list(range(1, 40))], [[False] + [True] * 38])
    needs = frozenset({"logp"})
    assert torch.equal(loaded.token_stats(batch, needs).logp, cast.token_stats(batch, needs).logp)
