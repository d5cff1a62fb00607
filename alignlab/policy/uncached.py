"""Sampling without a cache, from models that keep another state than keys and values (Mamba, RWKV, hybrids).

Every token takes a whole forward pass over what stands before it. Rows are padded on the right, where a causal model
does not look, so neither a mask nor positions are needed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    import transformers


@torch.no_grad()
def next_logits(model: "transformers.PreTrainedModel", rows: Sequence[Sequence[int]]) -> Float[Tensor, "N V"]:
    """Logits of the token after each row, by the model's own arithmetic."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
