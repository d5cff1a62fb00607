"""PEFT's adapters on the head: plain LoRA is seen and trained (`test_policy_head`), anything else refused by name."""

from typing import Any

import pytest
import torch
from test_policy_head import LOGP, eager, small
from torch import nn
from training_cases import batch_of

from alignlab.batch import TokenBatch
from alignlab.errors import ConfigError
from alignlab.policy import Policy


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="peft is not installed; the dev extra brings it")


def adapted(peft: Any, config: str, biased: bool = False, **options: Any) -> Policy:
    """A policy with an adapter of its own random weights on its head."""
    policy = small(tied=False)
    if biased:
        policy.model.lm_head.bias = nn.Parameter(torch.zeros(len(policy.model.lm_head.weight), dtype=torch.float64))
    kind = getattr(peft, config)
    peft.inject_adapter_in_model(kind(target_modules=["lm_head"], **options), policy.model).double()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora" in name or "ia3" in name or "hada" in name or "lokr" in name or "oft" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return policy


VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "DoRA": ("LoraConfig", {"r": 2, "use_dora": True}, "DoraLinearVariant"),
    "bias": ("LoraConfig", {"r": 2, "lora_bias": True, "biased": True}, "lora_bias=True"),
    "dropout": ("LoraConfig", {"r": 2, "lora_dropout": 0.5}, "lora_dropout=0.5"),
    "IA3": ("IA3Config", {"feedforward_modules": []}, "ia3.layer.Linear"),
    "LoHa": ("LoHaConfig", {"r": 2}, "loha.layer.Linear"),
    "LoKr": ("LoKrConfig", {"r": 2}, "lokr.layer.Linear"),
    "OFT": ("OFTConfig", {"r": 0, "oft_block_size": 4}, "oft.layer.Linear"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_adapters_on_the_head_are_refused(peft: Any, name: str) -> None:
    """Each says what it is and what to do; merged, it is a plain weight again."""
    config, options, why = VARIANTS[name]
    policy, batch = adapted(peft, config, **options), batch_of(TokenBatch, 1)
    policy.train()
    with pytest.raises(ConfigError, match=r"only plain LoRA may be on a model's head.*; merge the adapter") as error:
        policy.token_stats(batch, LOGP)
    assert why in str(error.value)
    policy.eval()
    want = eager(policy, batch)
    if name != "dropout":  # which does nothing outside training
        with pytest.raises(ConfigError, match="only plain LoRA"):
            Policy(policy.model, policy.tokenizer)
        policy.model.lm_head.merge()
    assert torch.allclose(policy.token_stats(batch, LOGP).logp, want, atol=1e-8)


def test_adapters_that_are_switched_off_are_not_seen(peft: Any) -> None:
    policy, batch = adapted(peft, "LoraConfig", r=2), batch_of(TokenBatch, 1)
    head = policy.model.lm_head
    base = small(tied=False).token_stats(batch, LOGP).logp
    assert not torch.allclose(policy.token_stats(batch, LOGP).logp, base)
    for merged in (False, True):
        if merged:
            head.enable_adapters(True)
            head.merge()
            assert torch.allclose(policy.token_stats(batch, LOGP).logp, eager(policy, batch), atol=1e-10)
        head.enable_adapters(False)
        assert torch.allclose(policy.token_stats(batch, LOGP).logp, base, atol=1e-10)


# PEFT 0.21 asks transformers 5.23 by the old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_whole_head_trained_beside_the_old_one_is_seen(peft: Any) -> None:
    policy, batch = small(tied=False), batch_of(TokenBatch, 1)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    peft.get_peft_model(policy.model, config).double()
    with torch.no_grad():
        policy.model.lm_head.modules_to_save["default"].weight.mul_(2.0)
    assert torch.allclose(policy.token_stats(batch, LOGP).logp, eager(policy, batch), atol=1e-10)
