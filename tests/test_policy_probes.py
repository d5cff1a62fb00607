"""A few tokens through a model: can it be sampled from, and does a cast leave its positions alone?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import config
from model_folders import llama, save
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, MambaConfig

from alignlab.batch import TokenBatch
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.policy import Policy, Sampling, complete, generate

Tensors = dict[str, Tensor]


# ---- sampling --------------------------------------------------------------------------------------------------------
def test_a_model_without_a_cache_of_keys_and_values_is_sampled_from_without_one(tmp_path: Path) -> None:
    """Greedily it says what each row's own forward passes say, whatever its neighbours are."""
    mamba = MambaConfig(vocab_size=448, hidden_size=16, state_size=4, num_hidden_layers=1, pad_token_id=0)
    policy = Policy.load(save(tmp_path, mamba))
    batch = TokenBatch.of([[1, 2, 3], [4, 5]], [[False, True, True], [False, True]])
    assert bool(policy.token_stats(batch, frozenset({"logp"})).logp.isfinite().all())
    assert "MambaForCausalLM cannot be sampled from with a cache" in policy.cache_obstacle()
    prompts = [Prompt.user("cat"), Prompt.user("the cat sat on a mat"), Prompt.user("yes")]
    for sample in generate(policy, prompts, Sampling(temperature=0, max_new_tokens=5), seed=0):
        row = list(sample.prompt_ids)
        for token in sample.answer_ids:
            assert token == int(policy.model(input_ids=torch.tensor([row])).logits[0, -1].argmax())
            row.append(token)
    assert complete(policy, ["cat"], Sampling(max_new_tokens=3), seed=0)[0].answer_ids
    policy.save(tmp_path / "again")
    assert Policy.load(tmp_path / "again")


def test_a_model_that_writes_to_its_weights_is_refused_or_kept_from_it(tmp_path: Path) -> None:
    """RWKV divides the weights of later layers by powers of two in evaluation, and would be published so."""
    given = save(tmp_path / "given", config("rwkv"))
    policy = Policy.load(given)
    theirs = AutoModelForCausalLM.from_pretrained(given).train()  # where it divides nothing
    tokens = torch.tensor([[1, 5, 9]])
    torch.testing.assert_close(policy.model(input_ids=tokens).logits, theirs(input_ids=tokens).logits)
    policy.save(tmp_path / "again")
    before, after = (load_file(f / "model.safetensors") for f in (given, tmp_path / "again"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ConfigError, match="RwkvForCausalLM: it changes its weights while it computes"):
        Policy(AutoModelForCausalLM.from_pretrained(given), policy.tokenizer)


def test_a_model_whose_answers_depend_on_padding_says_so(tmp_path: Path) -> None:
    policy = Policy.load(llama(tmp_path))
    assert policy.cache_obstacle() == ""

    class Padded(type(policy.model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            kwargs.pop("position_ids", None)
            kwargs.pop("attention_mask", None)
            return super().forward(*args, **kwargs)

    policy.model.__class__ = Padded
    other = Policy(policy.model, policy.tokenizer)
    assert "gives other probabilities with a cache and padding than without" in other.cache_obstacle()


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "llama"), (torch.float32, "gpt2")])
def test_what_can_be_sampled_from_has_no_obstacle(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    gpt2 = GPT2Config(vocab_size=448, n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    folder = llama(tmp_path) if name == "llama" else save(tmp_path, gpt2)
    assert Policy.load(folder, dtype).cache_obstacle() == ""


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
