"""New tokens: the tokenizer learns them, and embedding and head get a row for each, the mean of the old ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.data.control import token_ids
from alignlab.errors import ConfigError
from alignlab.policy import Policy
from alignlab.policy.lm_head import head_of


@torch.no_grad()
def add_tokens(policy: Policy, tokens: Sequence[str], template: str) -> int:
    """Make each of some texts one token; returns how many are new.

    A new token's logits are then about the mean of the others', so it is unlikely but not impossible, and its
    embedding lies within the others'. Rows beyond the tokenizer's size that a model has already are used first.

    Args:
        policy: a whole model, changed in place.
        tokens: texts.
        template: the chat template; a text that it writes becomes a control token.

    Raises:
        ConfigError: a text does not become one token.

    Source: Hewitt 2021, "Initializing new word embeddings for pretrained language models".
    """
    from tokenizers import AddedToken

    tokenizer, model = policy.tokenizer, policy.model
    known = len(tokenizer)
    new = list(dict.fromkeys(t for t in tokens if t not in tokenizer.get_vocab()))
    tokenizer.add_tokens([AddedToken(t, special=t in template, normalized=False) for t in new])
    for token in tokens:
        if len(token_ids(tokenizer, token)) != 1:
            raise ConfigError(f"add_tokens: the tokenizer does not read {token!r} as one token; choose another text")
    rows = len(_tables(policy)[0])
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table in _tables(policy) if new else []:
        table[known : len(tokenizer)] = table[: min(known, rows)].float().mean(0).to(table.dtype)
    return len(new)


def _tables(policy: Policy) -> list[Tensor]:
    """Tensors with a row for each token: the embedding, and the head's weight and bias where they are its own."""
    embedding: Any = policy.model.get_input_embeddings()
    weight, bias = head_of(policy.model)
    own = [] if weight is embedding.weight else [weight]
    return [embedding.weight, *own, *([] if bias is None else [bias])]
