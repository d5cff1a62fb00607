"""Tiny models of published architectures, with random weights: every family that a researcher is likely to bring."""

from collections.abc import Mapping
from typing import Any, Final

import transformers

VOCABULARY: Final = 448
SIZE: Final[Mapping[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MULTI_HEAD = {**{k: v for k, v in SIZE.items() if k not in ("num_key_value_heads", "head_dim")}}

TRANSFORMERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "llama": ("Llama", SIZE),
    "qwen2": ("Qwen2", {**SIZE, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", SIZE),
    "gemma2": ("Gemma2", {**SIZE, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "gemma3": ("Gemma3Text", {**SIZE, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "mistral": ("Mistral", {**SIZE, "sliding_window": 16}),
    "mixtral": ("Mixtral", {**SIZE, **_EXPERTS}),
    "phi3": ("Phi3", SIZE),
    "gpt2": ("GPT2", {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}),
    "gpt_neox": ("GPTNeoX", _MULTI_HEAD),
    "opt": ("OPT", {**_MULTI_HEAD, "ffn_dim": 32, "word_embed_proj_dim": 16}),
    "olmo2": ("Olmo2", _MULTI_HEAD),
    "granite": ("Granite", {**SIZE, "logits_scaling": 3.0, "embedding_multiplier": 2.0}),
    "smollm3": ("SmolLM3", SIZE),
    "deepseek_v3": (
        "DeepseekV3",
        {
            **{k: v for k, v in SIZE.items() if k != "head_dim"},
            "num_key_value_heads": 2,
            "moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
            "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_shared_experts": 1,
            "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
        },
    ),
    "gpt_oss": ("GptOss", {**SIZE, **_EXPERTS, "sliding_window": 16}),
    "cohere": ("Cohere", {**SIZE, "logit_scale": 0.3}),
}  # fmt: skip
"""Class of the configuration and its arguments, by name."""

STATE_SPACE: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "mamba": ("Mamba", {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}),
    "mamba2": (
        "Mamba2",
        {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "num_heads": 4,
         "head_dim": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "falcon_mamba": (
        "FalconMamba", {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2},
    ),
    "rwkv": (
        "Rwkv",
        {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16,
         "intermediate_size": 32, "context_length": 128, "rescale_every": 1},
    ),
    "qwen3_next": (
        "Qwen3Next",
        {**SIZE, "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
         "linear_value_head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
         "shared_expert_intermediate_size": 16, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "jamba": (
        "Jamba",
        {**{k: v for k, v in SIZE.items() if k != "head_dim"}, "num_experts": 2, "num_experts_per_tok": 1,
         "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_dt_rank": 4,
         "use_mamba_kernels": False},
    ),
    "bamba": (
        "Bamba",
        {**{k: v for k, v in SIZE.items() if k != "head_dim"}, "attn_layer_indices": [1], "mamba_n_heads": 4,
         "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8},
    ),
    "falcon_h1": (
        "FalconH1",
        {**SIZE, "lm_head_multiplier": 0.5, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4,
         "mamba_d_ssm": 32, "mamba_n_groups": 1, "mamba_chunk_size": 8},
    ),
    "recurrent_gemma": (
        "RecurrentGemma",
        {**SIZE, "lru_width": 16, "attention_window_size": 16, "logits_soft_cap": 3.0,
         "block_types": ["recurrent", "attention"]},
    ),
    "llama4": (
        "Llama4Text",
        {**SIZE, "intermediate_size_mlp": 32, "num_local_experts": 2, "num_experts_per_tok": 1,
         "interleave_moe_layer_step": 2, "attention_chunk_size": 16},
    ),
    "lfm2": ("Lfm2", {**{k: v for k, v in SIZE.items() if k != "head_dim"}, "layer_types": ["conv", "full_attention"]}),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        {**{k: v for k, v in SIZE.items() if k != "head_dim"}, "logits_scaling": 3.0, "mamba_n_heads": 4,
         "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8, "num_local_experts": 2,
         "num_experts_per_tok": 1, "shared_intermediate_size": 16, "layer_types": ["mamba", "attention"]},
    ),
}  # fmt: skip
"""With another kind of state than keys and values, alone or in some layers; and one with attention in chunks."""


def config(name: str) -> transformers.PreTrainedConfig:
    """The configuration of one of the architectures."""
    kind, arguments = {**TRANSFORMERS, **STATE_SPACE}[name]
    made: transformers.PreTrainedConfig = getattr(transformers, f"{kind}Config")(**arguments)
    return made
