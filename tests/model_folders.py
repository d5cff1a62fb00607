"""Small model folders for tests to spoil: weights, configuration and tokenizer as published ones have them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from chat_templates import CHATML, bpe
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig

SIZE = {
    "vocab_size": 448,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def llama(folder: Path, tie: bool = True, **config: Any) -> Path:
    """A Llama with a ChatML tokenizer."""
    return save(folder, LlamaConfig(**{**SIZE, "tie_word_embeddings": tie, **config}))


def save(folder: Path, config: PreTrainedConfig, tokenizer: Any = None, **options: Any) -> Path:
    """A model of a configuration, with seeded weights, and a tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, **options)
    (bpe(CHATML) if tokenizer is None else tokenizer).save_pretrained(folder)
    return folder


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the object in a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the tensors of a folder with one weights file."""
    file = folder / "model.safetensors"
    tensors = change(safetensors.torch.load_file(file))
    safetensors.torch.save_file({k: v.clone() for k, v in tensors.items()}, file, metadata={"format": "pt"})
