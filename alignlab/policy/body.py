"""Running a model's body on rows (`layout`), and finding out once whether its rows may share prompts.

Axes: R rows, L columns, d width.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.policy.layout import Rows, Sharing

if TYPE_CHECKING:
    import transformers

_TAKES_MASKS = frozenset({"eager", "sdpa"})
"""Implementations of attention that take a mask of any form."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "local_attention_window")
"""Names under which configurations have the span of attention that does not reach back to the beginning, tokens."""
_PROMPT, _ANSWERS = 9, (23, 4)
"""Lengths for the probe: an answer that was placed behind a longer one would be far from where it belongs."""


def body_states(model: "transformers.PreTrainedModel", rows: Rows) -> Float[Tensor, "R L d"]:
    """The body's last hidden states."""
    given: dict[str, Any] = {}
    if rows.sees is not None:
        given = {"attention_mask": _mask(model, rows.sees), "position_ids": rows.position}
    states: Tensor = model.base_model(input_ids=rows.tokens, use_cache=False, **given).last_hidden_state
    return states


def _mask(model: "transformers.PreTrainedModel", sees: Tensor) -> Tensor:
    """The mask as the implementation takes it: eager attention adds it to its logits."""
    if model.config._attn_implementation == "sdpa":
        return sees
    return torch.zeros_like(sees, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)


def sharing_of(model: "transformers.PreTrainedModel") -> Sharing:
    """Up to which length the rows of a model may share prompts, and what attention costs in it."""
    config = model.config.get_text_config()
    if model.config._attn_implementation not in _TAKES_MASKS or not _is_exact(model):
        return Sharing()
    windows = [w for name in _WINDOWS if isinstance(w := getattr(config, name, None), int) and w > 0]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embedded = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    others = sum(p.numel() for p in model.parameters() if id(p) not in embedded)
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * head / max(1, others)
    return Sharing(min(windows, default=2**31), attention)


@torch.no_grad()
def _is_exact(model: "transformers.PreTrainedModel") -> bool:
    """Whether answers that share a prompt in one row have the states that they have alone.

    Architectures that keep a state (Mamba) or place tokens by their column have other ones.
    """
    vocabulary = model.config.get_text_config().vocab_size
    first, second = _ANSWERS
    prompt, tokens = _PROMPT, torch.arange(_PROMPT + first + second, device=model.device) * 7 % vocabulary
    alone = [torch.cat([tokens[:prompt], part]) for part in (tokens[prompt : prompt + first], tokens[prompt + first :])]
    which = torch.tensor([0] * prompt + [1] * first + [2] * second, device=model.device)
    sees = (which[None, :] == 0) | (which[None, :] == which[:, None])
    place = [*range(prompt), *range(prompt, prompt + first), *range(prompt, prompt + second)]
    rows = Rows(tokens[None], torch.tensor([place], device=model.device), sees.tril()[None, None])
    training = model.training
    model.eval()
    try:
        found = body_states(model, rows)[0].float()
        expected = [body_states(model, Rows(row[None]))[0].float() for row in alone]
    except Exception:  # another architecture's own: it may fail anywhere
        return False
    finally:
        model.train(training)
    wanted = torch.cat([expected[0], expected[1][prompt:]])
    bound = 1e-5 if torch.finfo(model.dtype).bits >= 32 else 3e-2
    return bool((found - wanted).abs().max() <= bound * wanted.abs().max().clamp_min(1.0))
