"""Flat rows by FlexAttention on a GPU: the states, gradients and losses of each sequence alone."""

from typing import Any

import pytest
import torch
from test_policy_layout import SIZE, alone, counted, pairs, policy_of
from torch import Tensor
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from alignlab.batch import TokenBatch
from alignlab.policy import Policy
from alignlab.policy.blocks import BlockOptions

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
WIDE: dict[str, Any] = {**SIZE, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**WIDE),
    "qwen2": Qwen2Config(**WIDE),
    "qwen3": Qwen3Config(**WIDE, head_dim=16),
    "mistral": MistralConfig(**WIDE, sliding_window=None),
    "gemma3": Gemma3TextConfig(**WIDE, head_dim=16, query_pre_attn_scalar=16),
}


def compiled(config: PreTrainedConfig, checkpointed: bool = False) -> Policy:
    return policy_of(config).to("cuda").run_as(BlockOptions(compiled=True, checkpointed=checkpointed))


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@torch.no_grad()
def test_a_flat_row_changes_no_state(name: str, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = compiled(CONFIGS[name])
    rows = counted(policy, monkeypatch)
    for batch in (pairs(100, 20, 30).to("cuda"), pairs(40, 3, 70, 1, 12, kind=TokenBatch).to("cuda")):
        expected = alone(policy_of(CONFIGS[name]).to("cuda"), batch)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            found = policy.hidden_states(batch)
        bound = 3e-2 if half else 2e-3
        assert rows[-1].flat
        assert (found.float() - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_flat_row_changes_no_gradient(checkpointed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = compiled(CONFIGS["qwen2"], checkpointed), pairs(100, 20, 30).to("cuda")
    plain = policy_of(CONFIGS["qwen2"]).to("cuda")
    weight = torch.randn(batch.num_tokens, 64, device="cuda")
    rows = counted(policy, monkeypatch)
    (policy.hidden_states(batch) * weight).sum().backward()
    assert rows[-1].flat
    (alone(plain, batch) * weight).sum().backward()
    for found, expected in zip(_gradients(policy), _gradients(plain), strict=True):
        assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()


def _gradients(policy: Policy) -> list[Tensor]:
    return [p.grad for p in policy.model.base_model.parameters() if p.grad is not None]
