"""Running a model's body on rows (`layout`), and finding out once whether its rows may share prompts.

Axes: R rows, L columns, d width.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.policy.layout import FLAT_MULTIPLE, Mask, Rows
from alignlab.policy.lm_head import body_of
from alignlab.policy.packing import Sharing

if TYPE_CHECKING:
    import transformers

_TAKES_MASKS = frozenset({"eager", "sdpa"})
"""Implementations of attention that take a mask of any form."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size", "local_attention_window")
"""Names under which configurations have the span of attention that does not reach back to the beginning, tokens."""
_PROMPT, _ANSWERS, _NEXT = 9, (23, 4), 5
"""Lengths for the probe: an answer that was placed behind a longer one would be far from where it belongs."""


def body_states(model: "transformers.PreTrainedModel", rows: Rows) -> Float[Tensor, "R L d"]:
    """The body's last hidden states."""
    given: dict[str, Any] = {}
    if rows.mask is not None:
        mask = _block_mask(rows) if rows.flat else _dense_mask(model, rows.mask)
        given = {"attention_mask": mask, "position_ids": rows.position}
    states: Tensor = body_of(model)(input_ids=rows.tokens, use_cache=False, **given).last_hidden_state
    return states


def _dense_mask(model: "transformers.PreTrainedModel", mask: Mask) -> Tensor:
    """The mask as the implementation takes it: eager attention adds it to its logits."""
    sees = mask.dense()
    if model.config._attn_implementation == "sdpa":
        return sees
    return torch.zeros_like(sees, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)


def _block_mask(rows: Rows) -> Any:
    """The mask for FlexAttention, which skips the blocks in which nothing is seen."""
    assert rows.mask is not None
    text, answer, columns = rows.mask.text[0], rows.mask.answer[0], rows.tokens.shape[1]
    # As `Mask.dense`; a lambda, which the tests' checks of types leave as it is, so that it can be compiled.
    return _block_masks()(
        lambda _, __, query, key: (
            (query >= key) & (text[query] == text[key]) & ((answer[key] == 0) | (answer[key] == answer[query]))
        ),
        None,
        None,
        columns,
        columns,
        device=rows.tokens.device,
    )


@functools.cache
def _block_masks() -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask, dynamic=True)


def sharing_of(model: "transformers.PreTrainedModel") -> Sharing:
    """Up to which length the rows of a model may share prompts, and what attention costs in it."""
    config = model.config.get_text_config()
    turn = _turn(config)
    if model.config._attn_implementation not in _TAKES_MASKS or not _is_exact(model):
        return Sharing(turn=turn)
    windows = [w for name in _WINDOWS if isinstance(w := getattr(config, name, None), int) and w > 0]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embedded = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    others = sum(p.numel() for p in model.parameters() if id(p) not in embedded)
    attention = 2 * config.num_hidden_layers * config.num_attention_heads * head / max(1, others)
    longest, own = min(windows, default=2**31), _own_masks(model)
    return Sharing(longest, attention, min([longest, *own]) if own else Sharing.widest, turn)


def _turn(config: Any) -> int:
    """Longest sequence for which LongRoPE keeps the original frequencies, tokens; kinds of layers may differ."""
    rope = getattr(config, "rope_parameters", None) or {}
    each = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    far = [r.get("original_max_position_embeddings") for r in each if r.get("rope_type") == "longrope"]
    return min((int(length) for length in far if length), default=Sharing.turn)


def _own_masks(model: "transformers.PreTrainedModel") -> list[int]:
    """Columns of the masks that layers hold and apply by column, whatever mask they are given (GPT-Neo's windows)."""
    return [b.shape[-1] for b in model.base_model.buffers() if b.dim() > 1 and b.shape[-1] == b.shape[-2] > 1]


def with_flat_rows(model: "transformers.PreTrainedModel", sharing: Sharing) -> Sharing:
    """Flat rows, where FlexAttention gives the model the states that it has; else what is there.

    Args:
        model: on a GPU, with adapted blocks (`blocks`).
        sharing: of the model.
    """
    config = model.config.get_text_config()
    dropout = max(float(getattr(config, name, 0.0) or 0.0) for name in ("attention_dropout", "attn_pdrop"))
    plain = config is model.config and config._attn_implementation == "sdpa" and not dropout
    possible = sharing.longest > 0 and sharing.widest == Sharing.widest and plain
    return replace(sharing, flat=True) if possible and _is_exact(model, flat=True) else sharing


@torch.no_grad()
def _is_exact(model: "transformers.PreTrainedModel", flat: bool = False) -> bool:
    """Whether answers that share a prompt in one row, and a text after them, have the states that they have alone.

    Architectures that keep a state (Mamba) or place tokens by their column have other ones.
    """
    vocabulary = model.config.get_text_config().vocab_size
    first, second = _ANSWERS
    columns = (_PROMPT, first, second, _NEXT)
    tokens = torch.arange(sum(columns), device=model.device) * 7 % vocabulary
    prompt, *answers, after = tokens.split(columns)
    alone = [torch.cat([prompt, answers[0]]), torch.cat([prompt, answers[1]]), after]
    place = [*range(_PROMPT + first), *range(_PROMPT, _PROMPT + second), *range(_NEXT)]
    text = [0] * (len(tokens) - _NEXT) + [1] * _NEXT
    answer = [0] * _PROMPT + [1] * first + [2] * second + [1] * _NEXT
    position, *which = torch.tensor([place, text, answer], device=model.device)[:, None].unbind()
    rows = Rows(tokens[None], position, Mask(*which), flat)
    if flat:
        rows = _padded(rows)
    training = model.training
    model.eval()
    try:
        with contextlib.nullcontext() if flat else _in_full_precision(model):
            found = body_states(model, rows)[0, : len(tokens)].float()
            expected = [body_states(model, Rows(row[None]))[0].float() for row in alone]
    except Exception:  # another architecture's own: it may fail anywhere
        return False
    finally:
        model.train(training)
    wanted = torch.cat([expected[0], expected[1][_PROMPT:], expected[2]])
    half = torch.finfo(model.dtype).bits < 32 or torch.is_autocast_enabled(model.device.type)
    bound = 1e-5 if not flat else 3e-2 if half else 1e-4  # FlexAttention may use TF32
    return bool((found - wanted).abs().max() <= bound * wanted.abs().max().clamp_min(1.0))


@contextlib.contextmanager
def _in_full_precision(model: "transformers.PreTrainedModel") -> Iterator[None]:
    """Compute in float32, whatever the weights are held in: each module's are converted while it runs.

    In half precision, what an architecture does by column may be less than the rounding until it is trained.
    """
    held: dict[int, tuple[nn.Parameter, Tensor]] = {}

    def widen(module: nn.Module, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point() and torch.finfo(parameter.dtype).bits < 32:
                held[id(parameter)] = parameter, parameter.data
                parameter.data = parameter.data.float()

    def narrow(module: nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            if id(parameter) in held:
                parameter.data = held.pop(id(parameter))[1]

    hooks = [module.register_forward_pre_hook(widen) for module in model.modules()]
    hooks += [module.register_forward_hook(narrow, always_call=True) for module in model.modules()]
    try:
        with torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, data in held.values():  # of modules that failed
            parameter.data = data


def _padded(rows: Rows) -> Rows:
    """As long as a flat row is."""
    more = -rows.tokens.shape[1] % FLAT_MULTIPLE
    assert rows.position is not None and rows.mask is not None
    tokens, position = (nn.functional.pad(x, (0, more)) for x in (rows.tokens, rows.position))
    text, answer = (nn.functional.pad(x, (0, more), value=-1) for x in (rows.mask.text, rows.mask.answer))
    return Rows(tokens, position, Mask(text, answer), rows.flat)
